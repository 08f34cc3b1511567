//! The ladder a workspace climbs, what it should be, and the one operation that may be in progress.

/// A stored word that names no variant of its enum.
#[derive(Debug, thiserror::Error)]
#[error("{value:?} is no {kind}")]
pub struct UnknownWord {
    kind: &'static str,
    value: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word it is stored and shown as.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::phase::UnknownWord;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($word => Ok(Self::$variant),)+
                    other => Err($crate::phase::UnknownWord::new(stringify!($name), other)),
                }
            }
        }
    };
}
pub(crate) use words;

impl UnknownWord {
    pub(crate) fn new(kind: &'static str, value: &str) -> Self {
        Self {
            kind,
            value: value.to_owned(),
        }
    }
}

words! {
    /// Where a workspace is, as judged.
    Phase {
        /// No home yet.
        Pending = "PENDING",
        /// The home is an archive.
        Archived = "ARCHIVED",
        /// The home is a volume, nothing is ready on it.
        Standby = "STANDBY",
        /// The home is a volume with a ready container.
        Running = "RUNNING",
        /// Needs a person.
        Error = "ERROR",
        /// Deleted, something is left.
        Deleting = "DELETING",
        /// Deleted, nothing is left.
        Deleted = "DELETED",
    }
}

words! {
    /// What a workspace should be.
    DesiredState {
        /// Home in the archive store only.
        Archived = "ARCHIVED",
        /// Home on a volume.
        Standby = "STANDBY",
        /// Container running.
        Running = "RUNNING",
        /// Gone.
        Deleted = "DELETED",
    }
}

words! {
    /// The operation in progress.
    Operation {
        /// Nothing.
        None = "NONE",
        /// Make an empty home volume.
        Provisioning = "PROVISIONING",
        /// Make an archive of an empty home.
        CreateEmptyArchive = "CREATE_EMPTY_ARCHIVE",
        /// Archive to volume.
        Restoring = "RESTORING",
        /// Create and start the container.
        Starting = "STARTING",
        /// Volume to archive, then remove the volume.
        Archiving = "ARCHIVING",
        /// Volume to archive while the container runs; the volume stays the home.
        Checkpointing = "CHECKPOINTING",
        /// Stop and remove the container.
        Stopping = "STOPPING",
        /// Remove container, then volume.
        Deleting = "DELETING",
    }
}

impl DesiredState {
    /// The phase in which this wish is fulfilled.
    pub fn phase(self) -> Phase {
        match self {
            Self::Archived => Phase::Archived,
            Self::Standby => Phase::Standby,
            Self::Running => Phase::Running,
            Self::Deleted => Phase::Deleted,
        }
    }
}

impl Operation {
    /// Whether it cannot do without the archive store.
    pub fn needs_store(self) -> bool {
        match self {
            Self::CreateEmptyArchive | Self::Restoring | Self::Archiving | Self::Checkpointing => {
                true
            }
            Self::None | Self::Provisioning | Self::Starting | Self::Stopping | Self::Deleting => {
                false
            }
        }
    }

    /// Whether it may last long and is timed by its progress instead of its length.
    pub fn reports_progress(self) -> bool {
        matches!(
            self,
            Self::Restoring | Self::Archiving | Self::Checkpointing
        )
    }
}
