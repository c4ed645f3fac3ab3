//! The raw form: a tree of texts that know their places, from YAML or from one override.
//!
//! Nothing is interpreted here: `5s`, `0x46554e` and `[::]:53` are texts until a setting reads them. Anchors, tags and
//! several documents are refused, because no configuration of ours needs them and each is a way to be surprised.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::fault::{Cause, Fault};
use super::place::Place;

/// A value that knows its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// `key:` with nothing, `~` or `null`.
    Empty,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map; it has a place of its own.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Node {
    pub(super) fn scalar(place: Place, text: &str) -> Self {
        Self { place, content: Content::Scalar(text.to_owned()) }
    }

    pub(super) fn map(place: Place) -> Self {
        Self { place, content: Content::Map(Vec::new()) }
    }

    /// What stands there, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.content {
            Content::Empty => "nothing",
            Content::Scalar(_) => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a section",
        }
    }

    /// Puts `node` at the path below this one, over what is there; maps are made on the way.
    ///
    /// A path that leads through something else than a map changes nothing: that is a fault of its own.
    pub(super) fn overlay(&mut self, path: &str, node: Self) {
        let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
        if matches!(self.content, Content::Empty) {
            self.content = Content::Map(Vec::new());
        }
        let Content::Map(entries) = &mut self.content else { return };
        let at = entries.iter().position(|(key, _)| key.text == step).unwrap_or_else(|| {
            let key = Key { text: step.to_owned(), place: node.place.clone() };
            entries.push((key, Self { place: node.place.clone(), content: Content::Empty }));
            entries.len() - 1
        });
        match rest {
            Some(rest) => entries[at].1.overlay(rest, node),
            None => entries[at].1 = node,
        }
    }

    /// Reads one YAML document; `place` turns line and column, both from 1, into a place. Faults that do not end the
    /// reading are put into `faults`.
    ///
    /// # Errors
    /// The fault that ended it.
    pub(super) fn parse(
        text: &str,
        place: impl Fn(u32, u32) -> Place,
        faults: &mut Vec<Fault>,
    ) -> Result<Self, Box<Fault>> {
        let mut reading = Reading { events: Parser::new_from_str(text), place, faults };
        let root = match reading.next()? {
            // Nothing but comments.
            (Event::StreamEnd, _) => return Ok(Self::map((reading.place)(1, 1))),
            first => reading.node(first)?,
        };
        let (after, span) = reading.next()?;
        if !matches!(after, Event::StreamEnd) {
            let cause = Cause::Unused { what: "a second document" };
            return Err(Box::new(Fault::new(reading.at(span), "", cause)));
        }
        Ok(root)
    }
}

/// A document being read. The parser limits how deep it can nest.
struct Reading<'t, 'f, P> {
    events: Parser<'t, StrInput<'t>>,
    place: P,
    faults: &'f mut Vec<Fault>,
}

type Placed<'t> = (Event<'t>, Span);

impl<'t, P: Fn(u32, u32) -> Place> Reading<'t, '_, P> {
    /// The next event that means something; the end of the stream repeats itself.
    fn next(&mut self) -> Result<Placed<'t>, Box<Fault>> {
        loop {
            match self.events.next_event() {
                Some(Ok((
                    Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::Comment(..),
                    _,
                ))) => {}
                Some(Ok(event)) => return Ok(event),
                None => return Ok((Event::StreamEnd, Span::default())),
                Some(Err(error)) => {
                    let marker = error.marker();
                    let place = self.place_of(marker.line(), marker.col());
                    return Err(Box::new(Fault::new(place, "", Cause::Syntax { message: error.info() })));
                }
            }
        }
    }

    fn at(&self, span: Span) -> Place {
        self.place_of(span.start.line(), span.start.col())
    }

    /// The parser counts lines from 1 and columns from 0.
    fn place_of(&self, line: usize, column: usize) -> Place {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        (self.place)(number(line.max(1)), number(column.saturating_add(1)))
    }

    fn node(&mut self, (event, span): Placed<'t>) -> Result<Node, Box<Fault>> {
        let place = self.at(span);
        let content = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(&place, anchor, tag.is_some());
                let empty = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                if empty { Content::Empty } else { Content::Scalar(text.into_owned()) }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(&place, anchor, tag.is_some());
                self.list()?
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(&place, anchor, tag.is_some());
                self.map()?
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.faults.push(Fault::new(place.clone(), "", Cause::Unused { what: "an alias" }));
                Content::Empty
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            | Event::SequenceEnd
            | Event::MappingEnd
            | _ => {
                let message = "the text ends where a value belongs".to_owned();
                return Err(Box::new(Fault::new(place, "", Cause::Syntax { message })));
            }
        };
        Ok(Node { place, content })
    }

    fn refuse_extras(&mut self, place: &Place, anchor: usize, tagged: bool) {
        for (found, what) in [(anchor != 0, "an anchor"), (tagged, "a tag")] {
            if found {
                self.faults.push(Fault::new(place.clone(), "", Cause::Unused { what }));
            }
        }
    }

    fn list(&mut self) -> Result<Content, Box<Fault>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::List(items)),
                item => items.push(self.node(item)?),
            }
        }
    }

    fn map(&mut self) -> Result<Content, Box<Fault>> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Content::Map(entries)),
                key => self.node(key)?,
            };
            let value = self.next()?;
            let value = self.node(value)?;
            let Content::Scalar(text) = key.content else {
                let cause = Cause::WrongKind { found: key.kind(), expected: "a key" };
                self.faults.push(Fault::new(key.place, "", cause));
                continue;
            };
            match entries.iter().find(|(earlier, _)| earlier.text == text) {
                Some((Key { place: Place::File { line, .. }, .. }, _)) => {
                    self.faults.push(Fault::new(key.place, text, Cause::Twice { first_line: *line }));
                }
                Some(_) => self.faults.push(Fault::new(key.place, text, Cause::Twice { first_line: 1 })),
                None => entries.push((Key { text, place: key.place }, value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32) -> Place {
        Place::File { path: std::path::Path::new("f").into(), line, column }
    }

    fn parse(text: &str) -> (Result<Node, Box<Fault>>, Vec<Fault>) {
        let mut faults = Vec::new();
        (Node::parse(text, place, &mut faults), faults)
    }

    #[test]
    fn every_value_and_key_knows_its_line_and_column() {
        let (root, faults) = parse("# first\nouter:\n  inner: [a, 'b']\n");
        assert!(faults.is_empty());
        let Content::Map(outer) = root.unwrap().content else { panic!("a map") };
        assert_eq!(outer[0].0.place, place(2, 1));
        let Content::Map(inner) = &outer[0].1.content else { panic!("a map") };
        assert_eq!(inner[0].0.place, place(3, 3));
        let Content::List(items) = &inner[0].1.content else { panic!("a list") };
        assert_eq!((&items[0].place, &items[1].place), (&place(3, 11), &place(3, 14)));
    }

    #[test]
    fn scalars_are_kept_as_they_were_written() {
        let (root, _) = parse("[0x46554e, yes, 1e3, '~', ~, '']");
        let Content::List(items) = root.unwrap().content else { panic!("a list") };
        let texts: Vec<Option<&str>> = items
            .iter()
            .map(|item| match &item.content {
                Content::Scalar(text) => Some(text.as_str()),
                Content::Empty | Content::List(_) | Content::Map(_) => None,
            })
            .collect();
        assert_eq!(texts, [Some("0x46554e"), Some("yes"), Some("1e3"), Some("~"), None, Some("")]);
    }

    #[test]
    fn a_text_of_comments_alone_is_an_empty_section() {
        for text in ["", "# nothing\n", "---\n"] {
            let (root, faults) = parse(text);
            assert!(matches!(root.unwrap().content, Content::Map(_) | Content::Empty), "{text:?}");
            assert!(faults.is_empty());
        }
    }

    #[test]
    fn a_text_that_is_no_yaml_is_refused_at_its_place() {
        let fault = parse("a: b\nc: [d\n").0.unwrap_err();
        assert!(matches!(fault.cause, Cause::Syntax { .. }), "{fault}");
        assert!(matches!(fault.place, Place::File { line: 2..=3, .. }), "{fault}");
    }

    #[test]
    fn what_configurations_do_not_need_is_refused() {
        let cases = [
            ("a: &x 1\nb: 2", "an anchor"),
            ("a: !!str 1", "a tag"),
            ("a: &x 1\nb: *x", "an alias"),
            ("a: 1\n---\nb: 2", "a second document"),
        ];
        for (text, what) in cases {
            let (root, mut faults) = parse(text);
            faults.extend(root.err().map(|fault| *fault));
            assert!(faults.iter().any(|fault| fault.cause == Cause::Unused { what }), "{text:?}: {faults:?}");
        }
    }

    #[test]
    fn a_key_given_twice_names_the_first_one_s_line() {
        let (_, faults) = parse("a: 1\nb: 2\na: 3\n");
        assert_eq!(faults, [Fault::new(place(3, 1), "a", Cause::Twice { first_line: 1 })]);
    }

    #[test]
    fn deep_nesting_is_refused_without_harm() {
        let fault = parse(&"[".repeat(100_000)).0.unwrap_err();
        assert!(matches!(fault.cause, Cause::Syntax { .. }));
    }

    #[test]
    fn an_overlay_replaces_what_is_there_and_makes_what_is_not() {
        let (root, _) = parse("a: {b: 1, c: 2}");
        let mut root = root.unwrap();
        root.overlay("a.b", Node::scalar(Place::Default, "9"));
        root.overlay("x.y.z", Node::scalar(Place::Default, "8"));
        let text = format!("{root:?}");
        assert!(text.contains("\"9\"") && text.contains("\"2\"") && text.contains("\"8\"") && !text.contains("\"1\""));
    }
}
