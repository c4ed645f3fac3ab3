//! Declares sections: structs whose fields are configuration keys.
//!
//! One declaration serves reading, the JSON Schema and the documentation, so they cannot disagree.

/// Declares a section of the configuration: a struct whose fields are its keys, in the order they are documented.
///
/// `key: Type` is required unless its type knows what absence means (`Option`, `Vec`, maps, sections);
/// `key: Type = "text"` has that text as its default.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $key_doc:literal])* $key:ident: $type:ty $(= $default:literal)?, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name {
            $( $(#[doc = $key_doc])* pub $key: $type, )*
        }
    };
}

/// Declares a setting that is one of a few words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            $( $(#[doc = $word_doc])* $variant, )*
        }

        impl $name {
            /// The word that stands for it in a configuration.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }
        }
    };
}

pub(super) use {choice, section};
