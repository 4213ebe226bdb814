//! The entry of an option in the table.

use std::fmt::Display;

use super::Config;
use super::env::Env;

/// One option. Its flag, environment variable, key of the file, `--help`, line of `check`, row of docs/configuration.md
/// and behaviour at a reload follow from this.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The flag without its dashes. The variable and the key of the file follow from it.
    pub name: &'static str,
    /// The forms of the value, separated by `|`. The text is parsed: words in lower case are values, `off` may be one
    /// of them, and `BOOL` makes a switch, whose value is optional.
    pub value: &'static str,
    /// The group of `--help`.
    pub heading: Heading,
    /// How often the option may be given.
    pub repeat: Repeat,
    /// The location of the option in the file.
    pub(super) key: FileKey,
    /// What the option does, for `--help`.
    pub help: &'static str,
    pub(super) default: DefaultValue,
    /// Defaults in other places, such as `in exec warn`; empty if there are none. Those of `exec` are set in
    /// `cli/exec.rs`.
    pub(super) default_note: &'static str,
    /// What happens to a changed value when the configuration is reloaded.
    pub reload: Reload,
    pub(super) setting: Setting,
}

/// A group of options in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heading {
    /// Where the sidecar listens.
    Listeners,
    /// Which call gets which credential.
    RoutesAndRules,
    /// `CONNECT` with an own CA.
    TlsInterception,
    /// The token source.
    Tokens,
    /// Connections to upstreams.
    Upstreams,
    /// Bounds on resources.
    Limits,
    /// What is logged.
    Logging,
}

/// How many times an option may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Once in each of flags, environment and file; the first of these wins.
    Once,
    /// Any number of times. All values count, those of flags first.
    List,
    /// Like `List`, but an item of the file may be a mapping.
    Entries,
}

/// A changed value at a reload.
#[derive(Clone, Copy, Debug)]
pub enum Reload {
    /// It takes effect at once.
    Live,
    /// It takes effect after a restart. The function restores the old value and returns whether it differed.
    Restart(fn(new: &mut Config, old: &Config) -> bool),
    /// It belongs to a listener or the CA: `app::reload` decides.
    Listener,
}

/// The location of an option in the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileKey {
    /// At the top only.
    Top,
    /// At the top, or under this key of this mapping, where `check` prints it.
    Inside(&'static str, &'static str),
    /// Like `Inside`, but `check` prints it at the top.
    AlsoInside(&'static str, &'static str),
}

/// The value of an option that is not given.
#[derive(Clone, Copy, Debug)]
pub(super) enum DefaultValue {
    /// No value, or an empty list.
    Nothing,
    /// The value that this text has.
    Text(&'static str),
    /// A value that depends on the machine: its description, and the function that sets it.
    Computed(&'static str, fn(&mut Config, &Context<'_>)),
}

/// The conversion of an option's text to a value of the configuration, and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// Parses one text and sets the value, or adds it to a list. The error shows the accepted form.
    pub(super) set: fn(&mut Config, &str, &Context<'_>) -> Result<(), String>,
    /// The value for `check`.
    pub(super) print: fn(&Config) -> Printed,
}

/// Values that the meaning of a text may depend on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) env: &'a Env,
    /// The meaning of `--proxy-auth random`.
    pub(super) random_auth: Option<&'a str>,
}

/// A value as `check` prints it.
pub(super) enum Printed {
    Value(String),
    /// A value, and a comment that follows it.
    Noted(String, &'static str),
    List(Vec<String>),
    Null,
    /// A comment instead of a secret.
    Secret(&'static str),
    Routes,
    Rules,
}

/// An option that is one field of [`Config`]: the field, how a text is parsed, and how a value is printed.
macro_rules! field {
    ($($field:ident).+, $parse:expr, $print:expr) => {
        Setting {
            set: |config, text, _| {
                config.$($field).+ = ($parse)(text)?;
                Ok(())
            },
            print: |config| Printed::Value(($print)(&config.$($field).+)),
        }
    };
}

/// An option that adds to a list of [`Config`].
macro_rules! list {
    ($($field:ident).+, $parse:expr, $print:expr) => {
        Setting {
            set: |config, text, _| {
                let value = ($parse)(text)?;
                config.$($field).+.push(value);
                Ok(())
            },
            print: |config| Printed::List(config.$($field).+.iter().map($print).collect()),
        }
    };
}

/// An option whose text `resolve` parses, because its meaning depends on other options.
macro_rules! resolved_with_others {
    ($print:expr) => {
        Setting {
            set: |_, _, _| Ok(()),
            print: $print,
        }
    };
}

/// A field of [`Config`] that keeps its value until a restart.
macro_rules! restart {
    ($field:ident) => {
        Reload::Restart(|new, old| {
            let changed = new.$field != old.$field;
            new.$field.clone_from(&old.$field);
            changed
        })
    };
}

/// Makes [`OptionKey`](super::OptionKey) and its table from an entry for each option.
macro_rules! options {
    ($($key:ident { name: $name:literal, $($fields:tt)* })+) => {
        /// An option that a flag, a variable or a key of the file may set. `--config` is not one, because a file cannot
        /// name a file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum OptionKey {
            $(
                #[doc = concat!("`--", $name, "`")]
                $key,
            )+
        }

        impl OptionKey {
            /// Every option, in the order in which `check` prints them.
            pub const ALL: &[Self] = &[$(Self::$key),+];

            /// Returns the option's entry of the table.
            pub const fn spec(self) -> &'static OptionSpec {
                match self {
                    $(Self::$key => {
                        const SPEC: OptionSpec = OptionSpec { name: $name, $($fields)* };
                        &SPEC
                    })+
                }
            }
        }
    };
}

pub(super) use {field, list, options, resolved_with_others, restart};

// === impl OptionSpec ===

impl OptionSpec {
    /// Returns the option's text in `--help`: what it does, whether it may be repeated, its default.
    pub fn help_text(&self) -> String {
        let repeatable = match self.repeat {
            Repeat::Once => "",
            Repeat::List | Repeat::Entries => "; repeatable",
        };
        // A switch that is off needs no description of its default.
        let default = match self.default_text() {
            Some(default) if default != "false" => format!(" [default: {default}]"),
            _ => String::new(),
        };
        format!("{}{repeatable}{default}", self.help)
    }

    /// Returns the default as `--help` shows it.
    pub fn default_text(&self) -> Option<String> {
        let default = match self.default {
            DefaultValue::Nothing if self.default_note.is_empty() => return None,
            DefaultValue::Nothing => "none",
            DefaultValue::Text(text) | DefaultValue::Computed(text, _) => text,
        };
        match self.default_note {
            "" => Some(default.to_owned()),
            default_note => Some(format!("{default}, {default_note}")),
        }
    }

    /// Returns whether the value is true or false, and true if it is omitted.
    pub fn is_switch(&self) -> bool {
        self.value == "BOOL"
    }

    /// Returns whether `off` is a value.
    pub(super) fn takes_off(&self) -> bool {
        self.value.split('|').any(|form| form == "off")
    }

    /// Returns whether the default is another value on another machine.
    pub(super) fn depends_on_machine(&self) -> bool {
        matches!(
            self.default,
            DefaultValue::Computed(..) | DefaultValue::Text("auto")
        )
    }

    /// Returns whether the file may have `null`, as `check --all` prints it.
    pub(super) fn takes_null(&self) -> bool {
        matches!(self.default, DefaultValue::Nothing) && self.repeat == Repeat::Once
    }

    /// Returns whether the option is `key` of the mapping `group`.
    pub(super) fn is_inside(&self, group: &str, key: &str) -> bool {
        self.inside() == Some((group, key))
    }

    /// Returns the mapping and its key, if the option may be in one.
    pub(super) const fn inside(&self) -> Option<(&'static str, &'static str)> {
        match self.key {
            FileKey::Top => None,
            FileKey::Inside(group, key) | FileKey::AlsoInside(group, key) => Some((group, key)),
        }
    }
}

// === impl Heading ===

impl Heading {
    /// Returns the text of the heading.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listeners => "Listeners",
            Self::RoutesAndRules => "Routes and rules",
            Self::TlsInterception => "TLS interception",
            Self::Tokens => "Tokens",
            Self::Upstreams => "Upstreams",
            Self::Limits => "Limits",
            Self::Logging => "Logging",
        }
    }
}

// === impl Printed ===

impl Printed {
    /// Prints `off` if there is no value.
    pub(super) fn or_off(value: Option<impl Display>) -> Self {
        Self::Value(value.map_or_else(|| "off".to_owned(), |value| value.to_string()))
    }

    /// Prints `null` if there is no value.
    pub(super) fn or_null(value: Option<impl Display>) -> Self {
        value.map_or(Self::Null, |value| Self::Value(value.to_string()))
    }
}
