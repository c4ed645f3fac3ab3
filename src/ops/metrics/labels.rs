//! Labels: enums with few values, so that no peer can make a family grow.

/// One label of a family.
pub trait Label {
    /// Its name.
    const NAME: &'static str;

    /// The value's text.
    fn value(&self) -> &str;
}

/// The labels of a family: one [`Label`] type, or a tuple of up to five.
pub trait Labels {
    /// Their names, in order.
    const NAMES: &'static [&'static str];

    /// Calls `then` with the values' texts, in the order of the names.
    fn with_values<R>(&self, then: impl FnOnce(&[&str]) -> R) -> R;
}

impl<L: Label> Labels for L {
    const NAMES: &'static [&'static str] = &[L::NAME];

    fn with_values<R>(&self, then: impl FnOnce(&[&str]) -> R) -> R {
        then(&[self.value()])
    }
}

macro_rules! tuple_of_labels {
    ($($label:ident $at:tt),+) => {
        impl<$($label: Label),+> Labels for ($($label,)+) {
            const NAMES: &'static [&'static str] = &[$($label::NAME),+];

            fn with_values<R>(&self, then: impl FnOnce(&[&str]) -> R) -> R {
                then(&[$(self.$at.value()),+])
            }
        }
    };
}

tuple_of_labels!(A 0, B 1);
tuple_of_labels!(A 0, B 1, C 2);
tuple_of_labels!(A 0, B 1, C 2, D 3);
tuple_of_labels!(A 0, B 1, C 2, D 3, E 4);

/// Declares an enum that is a label: `enum Way: "way" { Sent = "sent", Received = "received", }`.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $visible:vis enum $name:ident: $label:literal {
            $( $(#[$value_meta:meta])* $variant:ident = $value:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        $visible enum $name {
            $( $(#[$value_meta])* $variant, )+
        }

        impl $crate::ops::metrics::Label for $name {
            const NAME: &'static str = $label;

            fn value(&self) -> &str {
                match self {
                    $( Self::$variant => $value, )+
                }
            }
        }
    };
}

pub(crate) use labels;

/// Why something was refused or failed: the `reason()` of an error, whose variants bound the number of values.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Reason(pub &'static str);

impl Label for Reason {
    const NAME: &'static str = "reason";

    fn value(&self) -> &str {
        self.0
    }
}
