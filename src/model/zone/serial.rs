//! Serial numbers of zones: numbers on a circle, so that "newer" is a question of the shorter way round (RFC 1982).

/// Whether `serial` is newer than `than`. Of two that lie exactly opposite each other neither is (RFC 1982 §3.2).
#[must_use]
pub const fn is_newer(serial: u32, than: u32) -> bool {
    let ahead = serial.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 31
}

/// The serial after this one. 0 is passed over: to some programs it means that there is no serial (RFC 2136 §7.11).
#[must_use]
pub const fn next(serial: u32) -> u32 {
    match serial.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_is_the_shorter_way_round_the_circle() {
        for (serial, than, newer) in [
            (1, 0, true),
            (0, 1, false),
            (5, 5, false),
            (0, u32::MAX, true),
            (0x7fff_ffff, 0, true),
            (0x8000_0000, 0, false),
            (0, 0x8000_0000, false),
            (0x8000_0001, 0, false),
            (0, 0x8000_0001, true),
        ] {
            assert_eq!(is_newer(serial, than), newer, "{serial} after {than}");
        }
    }

    #[test]
    fn the_next_serial_is_newer_and_never_0() {
        assert_eq!(next(1), 2);
        assert_eq!(next(u32::MAX), 1);
        assert!(is_newer(next(u32::MAX), u32::MAX));
    }
}
