//! Frames whole, cut and hostile.

use proptest::prelude::*;

use super::fuzz::{frames, said};
use super::*;

#[derive(Clone, Debug)]
enum Frame {
    Data(Vec<u8>),
    Token(Vec<u8>),
}

fn frame() -> impl Strategy<Value = Frame> {
    let octets = |most| proptest::collection::vec(any::<u8>(), 1..most);
    prop_oneof![octets(300).prop_map(Frame::Data), octets(40).prop_map(Frame::Token)]
}

fn encoded(sent: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in sent {
        match frame {
            Frame::Data(octets) => {
                out.extend(data(octets.len()));
                out.extend(octets);
            }
            Frame::Token(octets) => token(octets, &mut out).unwrap(),
        }
    }
    out.extend(end());
    out
}

proptest! {
    #[test]
    fn what_is_written_reads_back_however_it_is_cut(
        sent in proptest::collection::vec(frame(), 0..8), piece in 1_usize..400, next in any::<[u8; 3]>(),
    ) {
        let mut octets = encoded(&sent);
        let length = octets.len();
        octets.extend(next);
        let heard = said(&octets, piece);
        let content = sent.iter().filter_map(|frame| match frame { Frame::Data(octets) => Some(octets), Frame::Token(_) => None });
        let tokens = sent.iter().filter_map(|frame| match frame { Frame::Token(octets) => Some(octets), Frame::Data(_) => None });
        prop_assert_eq!(heard.content, content.flatten().copied().collect::<Vec<_>>());
        prop_assert!(heard.tokens.iter().map(|token| &token[..]).eq(tokens.map(|token| &token[..])));
        prop_assert!(heard.ended);
        prop_assert_eq!((heard.understood, heard.fault), (length, None));
    }

    #[test]
    fn no_octets_make_it_panic_and_all_mean_the_same_however_they_are_cut(
        octets in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..400),
    ) {
        frames(&octets);
    }
}

#[test]
fn the_frames_stand_on_the_wire_as_the_manual_draws_them() {
    assert_eq!(data(0x01_02_03), [0, 1, 2, 3]);
    assert_eq!(data(LONGEST_DATA), [0, 0xFF, 0xFF, 0xFF]);
    assert_eq!(end(), [1, 0, 0, 0]);
    let mut out = b"kept".to_vec();
    token(b"a.b", &mut out).unwrap();
    assert_eq!(out, b"kept\x02\0\0\x03a.b");
}

#[test]
fn frames_of_no_kind_or_of_a_wrong_length_are_refused_by_name() {
    let refused = |octets: &[u8]| said(octets, octets.len()).fault.unwrap();
    assert_eq!(refused(b"\x03\0\0\0"), FrameError::Kind { found: 3 });
    assert_eq!(refused(b"\r\n\r\n"), FrameError::Kind { found: b'\r' });
    assert_eq!(refused(b"\0\0\0\0"), FrameError::Length { kind: 0, octets: 0 });
    assert_eq!(refused(b"\x01\0\0\x01"), FrameError::Length { kind: 1, octets: 1 });
    assert_eq!(refused(b"\x02\0\0\0"), FrameError::Length { kind: 2, octets: 0 });
    assert_eq!(refused(b"\x02\0\x20\x01"), FrameError::TokenTooLong { octets: LONGEST_TOKEN + 1 });
    assert_eq!(said(b"\x02\0\x20\0", 4).fault, None);
}

#[test]
fn a_token_may_have_exactly_the_longest_length() {
    let longest = vec![b'x'; LONGEST_TOKEN + 1];
    let mut out = Vec::new();
    assert!(token(&longest[1..], &mut out).is_ok());
    let length = out.len();
    assert_eq!(token(&longest, &mut out), Err(TokenTooLong { octets: LONGEST_TOKEN + 1 }));
    assert_eq!(out.len(), length);
}

#[test]
fn a_token_is_never_printed() {
    assert!(!format!("{:?}", Event::Token(Renewed(b"secret".as_slice().into()))).contains("115"));
}
