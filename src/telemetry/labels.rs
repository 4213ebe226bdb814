//! Labels with a closed set of values.

macro_rules! labels {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            $vis const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Returns the label's value.
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// The outcome of a token lookup: `sidentity_token_lookups_total{outcome}`.
    pub Lookup {
        /// A fresh token from the slot.
        Hit = "hit",
        /// A token from the slot, while a refresh runs in the background.
        Stale = "stale",
        /// The request waited for a fetch.
        Wait = "wait",
        /// No token was obtained.
        Error = "error",
    }
}

labels! {
    /// The outcome of a fetch: `sidentity_token_fetches_total{outcome}`.
    pub Fetch {
        /// A new token.
        Ok = "ok",
        /// The same token again.
        Unchanged = "unchanged",
        /// No usable token.
        Error = "error",
    }
}

labels! {
    /// The outcome of dialling an upstream: `sidentity_upstream_connects_total{outcome}`.
    pub(crate) Connect {
        /// A connection.
        Ok = "ok",
        /// Name resolution failed or timed out.
        Dns = "dns",
        /// The connection was refused.
        Refused = "refused",
        /// The attempt timed out.
        Timeout = "timeout",
        /// The TLS or HTTP/2 handshake failed.
        Tls = "tls",
        /// Another error.
        Error = "error",
    }
}
