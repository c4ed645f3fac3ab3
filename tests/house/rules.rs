//! The rules, each over the words of one source.

use super::lexer::{Token, tokens};

/// One rule broken at one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) line: usize,
    pub(crate) found: String,
}

const ROLES: [&str; 7] = ["demo", "edge", "init", "node", "peak", "sidecar", "webhook"];
const MIDDLE: [&str; 3] = ["config", "net", "ops"];

/// What the layer `of` may import besides itself; `None` for what stands in no layer.
fn may_import(of: &str) -> Option<Vec<&'static str>> {
    let below = ["model", "wire"];
    Some(match of {
        "model" => vec![],
        "wire" => vec!["model"],
        middle if MIDDLE.contains(&middle) => below.to_vec(),
        "trust" => [&below[..], &MIDDLE].concat(),
        role if ROLES.contains(&role) => [&below[..], &MIDDLE, &["trust"]].concat(),
        "cli" => [&below[..], &MIDDLE, &["trust"], &ROLES].concat(),
        _ => return None,
    })
}

/// Crates that stay behind one door: the crate, and the sources that may name it.
const DOORS: [(&str, &[&str]); 16] = [
    ("aws_lc_rs", &["src/net/tls", "src/wire/dns/tsig"]),
    (
        "clap",
        &["src/cli", "src/demo", "src/init", "src/node", "src/ops/output.rs", "src/peak", "src/sidecar", "src/webhook"],
    ),
    ("clap_complete", &["src/cli"]),
    ("hickory_proto", &["src/net/dns_client"]),
    ("hickory_resolver", &["src/net/dns_client"]),
    ("jsonwebtoken", &["src/wire/jw"]),
    ("kube", &["src/net/kubernetes"]),
    ("libc", &["src/net"]),
    ("netlink_packet_core", &["src/net"]),
    ("netlink_packet_route", &["src/net"]),
    ("netlink_sys", &["src/net"]),
    ("openraft", &["src/peak/store"]),
    ("prometheus", &["src/ops"]),
    ("rtnetlink", &["src/net"]),
    ("schemars", &["src/config"]),
    ("tracing_subscriber", &["src/ops"]),
];

/// Words that a pure layer never says: waiting, sockets, clocks, randomness, logs.
const IMPURE_WORDS: [&str; 22] = [
    "hyper",
    "tokio",
    "tower",
    "tracing",
    "log",
    "rand",
    "getrandom",
    "fastrand",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "UnixDatagram",
    "socket2",
    "rustix",
    "libc",
    "SystemRandom",
    "RandomState",
];
/// Parts of `std` that a pure layer never names.
const IMPURE_STD: [&str; 5] = ["env", "fs", "os", "process", "thread"];
/// Macros that write somewhere.
const IMPURE_MACROS: [&str; 10] =
    ["dbg", "debug", "eprint", "eprintln", "error", "info", "print", "println", "trace", "warn"];

/// Everything wrong with `source`, which stands at `path` below the top of the house.
pub(crate) fn violations(path: &str, source: &str) -> Vec<Violation> {
    let words = tokens(source);
    let mut found = Vec::new();
    if !source.trim_start_matches('\u{feff}').starts_with("//!") {
        found.push(Violation { rule: "module-doc", line: 1, found: "no //! on the first line".to_owned() });
    }
    found.extend(unsafe_words(path, &words));
    if let Some(inside) = path.strip_prefix("src/") {
        found.extend(imports(inside, &words));
        found.extend(doors(path, &words));
        found.extend(ambient(path, &words));
        if inside.starts_with("model/") || inside.starts_with("wire/") {
            found.extend(impurities(&words));
        }
    }
    found
}

fn unsafe_words(path: &str, words: &[Token]) -> Vec<Violation> {
    if path.starts_with("src/net/sys/") || path == "src/net/sys.rs" {
        return Vec::new();
    }
    words.iter().filter(|word| word.text == "unsafe").map(|word| broken("unsafe", word)).collect()
}

fn broken(rule: &'static str, word: &Token) -> Violation {
    Violation { rule, line: word.line, found: word.text.clone() }
}

fn imports(inside: &str, words: &[Token]) -> Vec<Violation> {
    let layer = inside.split(['/', '.']).next().unwrap_or("");
    let Some(allowed) = may_import(layer) else { return Vec::new() };
    let is_layer = |name: &str| may_import(name).is_some();
    let wrong = |word: &&Token| is_layer(&word.text) && word.text != layer && !allowed.contains(&word.text.as_str());
    named_from_the_root(inside, words).into_iter().filter(wrong).map(|word| broken("layers", word)).collect()
}

/// The words that follow `crate::`, `crate::{`, or as many `super::` as lead to the crate's root.
fn named_from_the_root<'w>(inside: &str, words: &'w [Token]) -> Vec<&'w Token> {
    let mut named = Vec::new();
    let mut modules = Modules::of_file(inside);
    let mut at = 0;
    while at < words.len() {
        modules.pass(words, at);
        let supers = words[at..].chunks(2).take_while(|pair| is_path(pair, "super")).count();
        let preceded = at > 0 && words[at - 1].text == "::" && at > 1 && words[at - 2].text != "self";
        let length = if is_path(&words[at..], "crate") {
            2
        } else if supers > 0 && !preceded && supers == modules.depth() {
            2 * supers
        } else {
            at += 1;
            continue;
        };
        at += length;
        named.extend(first_names(&words[at..]));
    }
    named
}

fn is_path(words: &[Token], first: &str) -> bool {
    words.len() >= 2 && words[0].text == first && words[1].text == "::"
}

/// The first name of a path, or of each path of a group `{a::b, c}`.
fn first_names(words: &[Token]) -> Vec<&Token> {
    let Some(first) = words.first() else { return Vec::new() };
    if first.text != "{" {
        return vec![first];
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate() {
        match word.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 1 && matches!(words[at - 1].text.as_str(), "{" | ",") => names.push(word),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// How many modules lie between the crate's root and where the reader stands.
struct Modules {
    of_file: usize,
    /// For each inline module that is open: the depth of braces inside it.
    inline: Vec<usize>,
    braces: usize,
}

impl Modules {
    fn of_file(inside: &str) -> Self {
        let of_file = inside.trim_end_matches(".rs").split('/').filter(|part| !matches!(*part, "mod" | "lib")).count();
        Self { of_file, inline: Vec::new(), braces: 0 }
    }

    fn depth(&self) -> usize {
        self.of_file + self.inline.len()
    }

    fn pass(&mut self, words: &[Token], at: usize) {
        match words[at].text.as_str() {
            "{" => {
                self.braces += 1;
                if at >= 2 && words[at - 2].text == "mod" {
                    self.inline.push(self.braces);
                }
            }
            "}" => {
                if self.inline.last() == Some(&self.braces) {
                    self.inline.pop();
                }
                self.braces = self.braces.saturating_sub(1);
            }
            _ => {}
        }
    }
}

fn doors(path: &str, words: &[Token]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        // A crate is named at the start of a path; a field or module of the same name is not it.
        let starts = at == 0 || !matches!(words[at - 1].text.as_str(), "::" | "." | "mod");
        let names = words.get(at + 1).is_some_and(|next| matches!(next.text.as_str(), "::" | ";" | "as"));
        let closed = |(crate_name, open): &(&str, &[&str])| {
            *crate_name == word.text && !open.iter().any(|open| path.starts_with(open))
        };
        if starts && names && DOORS.iter().any(closed) {
            found.push(broken("door", word));
        }
    }
    found
}

/// Who may read the environment: settings come from it in one place, and what talks to people asks it about their
/// terminal and their programs.
const ENVIRONMENT: [&str; 3] = ["src/cli/", "src/config/", "src/demo/"];

/// The wall clock has one reader in the whole crate, the environment a few.
fn ambient(path: &str, words: &[Token]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let after = |text: &str| at >= 2 && words[at - 1].text == "::" && words[at - 2].text == text;
        let clock = after("SystemTime") && word.text == "now" && path != "src/ops/clock.rs";
        let environment = after("env")
            && matches!(word.text.as_str(), "var" | "vars" | "var_os" | "vars_os")
            && !ENVIRONMENT.iter().any(|reader| path.starts_with(reader));
        for (rule, broke) in [("clock", clock), ("environment", environment)] {
            if broke {
                found.push(broken(rule, word));
            }
        }
    }
    found
}

fn impurities(words: &[Token]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let text = word.text.as_str();
        let next = words.get(at + 1).map_or("", |next| next.text.as_str());
        let field = at > 0 && words[at - 1].text == ".";
        let said = IMPURE_WORDS.contains(&text) && !field && (next == "::" || text.starts_with(char::is_uppercase));
        let written = IMPURE_MACROS.contains(&text) && next == "!";
        if said || written {
            found.push(broken("pure", word));
        }
        if is_path(&words[at..], "std") {
            let parts = first_names(&words[at + 2..]);
            found.extend(
                parts
                    .into_iter()
                    .filter(|part| IMPURE_STD.contains(&part.text.as_str()))
                    .map(|part| broken("pure", part)),
            );
        }
    }
    found
}
