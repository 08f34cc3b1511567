//! The home of record: which volume or archive holds the user's files. Anything else, such as a
//! half-restored volume, never counts as a home.

use serde::{Deserialize, Serialize};

use crate::ids::VolumeId;

/// Where the home of record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HomeLocation {
    /// There is none yet.
    #[default]
    None,
    /// The volume named by `volume_id`.
    Volume,
    /// The archive named by the row's `archive_key`.
    Archive,
}

/// The `home_ctx` column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Where the home is.
    pub location: HomeLocation,
    /// The home volume. Where the home is no volume: the one that was it, as long as it is not removed, or is lost
    /// and may come back. It may hold what nothing else has, so nothing makes room of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// The archive the volume was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
}

impl Home {
    /// No home yet.
    pub fn none() -> Self {
        Self::default()
    }

    /// None any more; `was` is the volume that was it.
    pub fn none_after(was: Option<VolumeId>) -> Self {
        Self {
            volume_id: was,
            ..Self::none()
        }
    }

    /// A fresh volume.
    pub fn volume(volume_id: VolumeId) -> Self {
        Self {
            location: HomeLocation::Volume,
            volume_id: Some(volume_id),
            restored_from: None,
        }
    }

    /// A volume that was restored from an archive.
    pub fn restored(volume_id: VolumeId, archive_key: &str) -> Self {
        Self {
            restored_from: Some(archive_key.to_owned()),
            ..Self::volume(volume_id)
        }
    }

    /// An archive; `was` is the volume that was the home before.
    pub fn archive(was: Option<VolumeId>) -> Self {
        Self {
            location: HomeLocation::Archive,
            volume_id: was,
            restored_from: None,
        }
    }

    /// The volume that is the home, if the home is a volume.
    pub fn home_volume(&self) -> Option<VolumeId> {
        match self.location {
            HomeLocation::Volume => self.volume_id,
            HomeLocation::None | HomeLocation::Archive => None,
        }
    }
}
