//! Rust's words without its comments and literals, which may say anything.

/// One word or sign of a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
}

/// Splits a source into identifiers, `::` and single signs. Comments, texts and numbers are left out; so are lifetimes.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'s> {
    rest: &'s str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        let length = if self.rest.starts_with("//") {
            self.rest.find('\n').unwrap_or(self.rest.len())
        } else if self.rest.starts_with("/*") {
            block_comment(self.rest)
        } else if let Some(length) = raw_text(self.rest) {
            length
        } else if let Some(quote) = ["\"", "b\"", "c\""].into_iter().find(|quote| self.rest.starts_with(quote)) {
            quote.len() + escaped(&self.rest[quote.len()..], '"')
        } else if first == '\'' || self.rest.starts_with("b'") {
            character_or_lifetime(self.rest)
        } else if first.is_alphabetic() || first == '_' {
            let length = word(self.rest);
            self.push(length);
            length
        } else if first.is_ascii_digit() {
            self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len())
        } else if self.rest.starts_with("::") {
            self.push(2);
            2
        } else {
            if !first.is_whitespace() {
                self.push(first.len_utf8());
            }
            first.len_utf8()
        };
        let (passed, rest) = self.rest.split_at(length);
        self.line += passed.matches('\n').count();
        self.rest = rest;
        true
    }

    fn push(&mut self, length: usize) {
        self.tokens.push(Token { text: self.rest[..length].to_owned(), line: self.line });
    }
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            match rest.chars().next() {
                Some(passed) => at += passed.len_utf8(),
                None => return at,
            }
        }
        if depth == 0 {
            return at;
        }
    }
}

/// The length of a raw text such as `r#"…"#`.
fn raw_text(text: &str) -> Option<usize> {
    let start = ["r", "br", "cr"]
        .into_iter()
        .find(|start| text.strip_prefix(start).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let hashes = text[start.len()..].find('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body = start.len() + hashes + 1;
    Some(text[body..].find(&end).map_or(text.len(), |length| body + length + end.len()))
}

/// The length up to and with the closing quote.
fn escaped(text: &str, quote: char) -> usize {
    let mut passed_backslash = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if passed_backslash => passed_backslash = false,
            '\\' => passed_backslash = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let body = text.find('\'').map_or(0, |at| at + 1);
    let mut chars = text[body..].chars();
    let (first, second) = (chars.next(), chars.next());
    let is_lifetime = first.is_some_and(|c| c.is_alphabetic() || c == '_') && second != Some('\'');
    if is_lifetime { body + word(&text[body..]) } else { body + escaped(&text[body..], '\'') }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_say_nothing() {
        let silent = [
            "// unsafe",
            "/// unsafe\n//! unsafe",
            "/* unsafe /* unsafe */ unsafe */",
            "\"unsafe \\\" unsafe\"",
            "r\"unsafe\\\"",
            "r##\"unsafe \"# unsafe\"##",
            "b\"unsafe\" br#\"unsafe\"#",
            "'u' '\\'' b'\\\\' '\"'",
            "0x_unsafe 1_000u64",
        ];
        for source in silent {
            assert_eq!(texts(source), [""; 0], "{source}");
        }
    }

    #[test]
    fn what_stands_beside_them_is_heard() {
        assert_eq!(texts("a::b/* x */c"), ["a", "::", "b", "c"]);
        assert_eq!(texts("f(\"x\", 'c', r#\"y\"#).g"), ["f", "(", ",", ",", ")", ".", "g"]);
        assert_eq!(texts("fn f<'a>(x: &'a str)"), ["fn", "f", "<", ">", "(", "x", ":", "&", "str", ")"]);
        assert_eq!(texts("'\"' unsafe"), ["unsafe"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let lines: Vec<usize> = tokens("a\n/*\n*/ b \"\n\" c").into_iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 4]);
    }
}
