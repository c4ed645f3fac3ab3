//! Entry point for fuzzing: any octets, cut anywhere. Panics exactly when an invariant is broken.

use super::{Decoder, Event, FrameError};

/// What one direction of a stream says, with its content put together.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// All content.
    pub content: Vec<u8>,
    /// All tokens.
    pub tokens: Vec<Box<[u8]>>,
    /// Whether the direction ended.
    pub ended: bool,
    /// How many octets were understood.
    pub understood: usize,
    /// What is wrong.
    pub fault: Option<FrameError>,
}

/// Gives the octets to a decoder in pieces of at most `piece` octets.
#[must_use]
pub fn said(octets: &[u8], piece: usize) -> Said {
    let (mut decoder, mut said) = (Decoder::default(), Said::default());
    for piece in octets.chunks(piece.max(1)) {
        let mut at = 0;
        loop {
            let before = at;
            let event = decoder.next(piece, &mut at);
            assert!((before..=piece.len()).contains(&at), "the decoder stays inside the octets");
            match event {
                Ok(Some(Event::Data(range))) => {
                    assert!(!range.is_empty() && range.end == at, "content is what was just understood");
                    said.content.extend_from_slice(&piece[range]);
                }
                Ok(Some(Event::Token(token))) => said.tokens.push(token.0),
                Ok(Some(Event::End)) => said.ended = true,
                Ok(None) => break,
                Err(fault) => {
                    said.fault = Some(fault);
                    return said;
                }
            }
        }
        said.understood += at;
        assert!(at == piece.len() || decoder.has_ended(), "nothing is left but after the end");
        if said.ended {
            break;
        }
    }
    said
}

/// Any octets mean the same however they are cut.
///
/// # Panics
/// When the decoder is wrong.
pub fn frames(octets: &[u8]) {
    let whole = said(octets, octets.len());
    for piece in [1, 2, 3, 5, 7, 64] {
        let cut = said(octets, piece);
        assert_eq!(
            (&cut.content, &cut.tokens, cut.ended, cut.fault),
            (&whole.content, &whole.tokens, whole.ended, whole.fault)
        );
        assert!(cut.fault.is_some() || cut.understood == whole.understood);
    }
}
