//! The program's own code in memory.

/// Lets go of the pages of code that are mapped, so that those which only the start needed count no longer as memory of
/// this process; the kernel maps a page again, from the file or its cache, when it is next run. Does nothing without
/// `/proc`.
pub(crate) fn forget() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: the range is one whole mapping of a file, executable and not writable, so that its pages are those of
        // the file and none has been changed; MADV_DONTNEED drops them from the page table, and what runs or reads there
        // next finds the same octets. Mappings of code are never replaced while the process runs: it loads no libraries.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Where a mapping of a file's code begins and how long it is, from a line of proc_pid_maps(5).
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let of_a_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (permissions == "r-xp" && of_a_file).then(|| (start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_a_file_is_found_and_nothing_else_is_taken_for_it() {
        let line = |permissions, path| format!("1000-3000 {permissions} 00000000 08:02 173521 {path}");
        assert_eq!(code(&line("r-xp", "/usr/bin/funicular")), Some((0x1000, 0x2000)));
        for (permissions, path) in [("r--p", "/usr/bin/funicular"), ("rwxp", "/x"), ("r-xp", "[vdso]"), ("r-xp", "")] {
            assert_eq!(code(&line(permissions, path)), None, "{permissions} {path}");
        }
    }

    #[test]
    fn what_was_let_go_still_runs() {
        forget();
        assert_eq!("a b".split(' ').count(), 2);
    }
}
