//! Lines of text: broken at spaces, indented, coloured.

/// Columns of the text form.
pub(super) const WIDTH: usize = 80;
/// Columns before everything that belongs to a step.
pub(super) const INDENT: usize = 4;

/// Breaks paragraphs at spaces so that no line is longer than [`WIDTH`], except by a single longer word.
pub(super) fn wrap(text: &str, indent: usize) -> String {
    let mut wrapped = String::new();
    let margin = " ".repeat(indent);
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            wrapped.push('\n');
        }
        fill(&mut wrapped, paragraph.split_whitespace(), &margin, &margin, "");
    }
    wrapped
}

/// A line that is cut at spaces only where it is too long; what follows hangs.
pub(super) fn hang(line: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    if indent + line.chars().count() <= WIDTH {
        return format!("{margin}{line}\n");
    }
    let mut wrapped = String::new();
    fill(&mut wrapped, line.split(' '), &margin, &format!("{margin}    "), "");
    wrapped
}

/// The same for a command line: continued lines end in a backslash and hang, so that they can be pasted.
pub(super) fn wrap_command(text: &str, indent: usize) -> String {
    let mut wrapped = String::new();
    let margin = " ".repeat(indent);
    fill(&mut wrapped, text.split(' '), &margin, &format!("{margin}    "), " \\");
    wrapped
}

/// Puts words behind `first`, and behind `rest` where a line would grow too long; a line that goes on ends in
/// `continued`.
pub(super) fn fill<'a>(
    out: &mut String,
    words: impl Iterator<Item = &'a str>,
    first: &str,
    rest: &str,
    continued: &str,
) {
    let mut line = String::from(first);
    let mut empty = true;
    for word in words {
        let needed = line.chars().count() + 1 + word.chars().count() + continued.len();
        if !empty && needed > WIDTH {
            out.push_str(&line);
            out.push_str(continued);
            out.push('\n');
            line = String::from(rest);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    if !empty {
        out.push_str(&line);
        out.push('\n');
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        // Line by line, so that no colour runs past the end of its line.
        text.split_inclusive('\n')
            .map(|line| match line.strip_suffix('\n') {
                Some(body) => format!("\x1b[{code}m{body}\x1b[0m\n"),
                None => format!("\x1b[{code}m{line}\x1b[0m"),
            })
            .collect()
    }

    pub(super) fn title(self, text: &str) -> String {
        self.wrap("1;36", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(super) fn accent(self, text: &str) -> String {
        self.wrap("34", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_command_can_be_pasted() {
        let command = format!("curl {}", "--header value ".repeat(10).trim_end());
        let wrapped = wrap_command(&command, INDENT);
        let joined: Vec<&str> = wrapped.lines().map(|line| line.trim_end_matches('\\').trim()).collect();
        assert_eq!(joined.join(" "), command);
        assert!(wrapped.lines().count() > 1);
    }

    #[test]
    fn a_line_that_fits_stays_as_it_is_and_a_longer_one_hangs() {
        let fits = "x".repeat(WIDTH - INDENT);
        assert_eq!(hang(&fits, INDENT), format!("    {fits}\n"));
        let longer = format!("{} end", "x".repeat(WIDTH - INDENT - 3));
        assert_eq!(hang(&longer, INDENT).lines().nth(1), Some("        end"));
    }

    #[test]
    fn paragraphs_stay_apart() {
        assert_eq!(wrap("one\ntwo\n\nthree", 2), "  one two\n\n  three\n");
    }
}
