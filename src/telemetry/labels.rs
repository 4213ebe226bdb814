//! Labels with a closed set of values.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The label's value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// How a token was looked up: `sidentity_token_lookups_total{outcome}`.
    Lookup {
        /// Fresh, from the slot.
        Hit = "hit",
        /// From the slot, while a refresh starts behind it.
        Stale = "stale",
        /// The request waited for a fetch.
        Wait = "wait",
        /// No token was obtained.
        Error = "error",
    }
}

labels! {
    /// What a fetch gave: `sidentity_token_fetches_total{outcome}`.
    Fetch {
        /// A new token.
        Ok = "ok",
        /// The same token again.
        Unchanged = "unchanged",
        /// No usable token.
        Error = "error",
    }
}

labels! {
    /// How dialling an upstream ended: `sidentity_upstream_connects_total{outcome}`.
    Connect {
        /// A connection.
        Ok = "ok",
        /// Name resolution failed or timed out.
        Dns = "dns",
        /// The connection was refused.
        Refused = "refused",
        /// Not in time.
        Timeout = "timeout",
        /// The TLS or HTTP/2 handshake failed.
        Tls = "tls",
        /// Anything else.
        Error = "error",
    }
}
