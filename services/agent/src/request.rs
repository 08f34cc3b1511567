//! What callers ask for, checked: everything past here is well-formed. Errors name their field.

use std::time::Duration;

use tonic::Status;
use uuid::Uuid;
use windlass_archive::layout::{self, ParsedKey};
use windlass_domain::Shard;
use windlass_domain::control::Limits;
use windlass_proto::convert::{self, InvalidField};
use windlass_proto::v1;
use windlass_service::invalid_argument;

use crate::epochs::Claim;
use crate::jobs::WorkContext;
use crate::operations::Keep;

/// Longest time between SIGTERM and SIGKILL.
const MAX_GRACE: Duration = Duration::from_secs(300);
/// Keys of one DeleteArchives.
const MAX_KEYS: usize = 1000;
/// Longest value of a label, in bytes.
const MAX_LABEL: usize = 4096;
/// Longest key of an object, by S3.
const MAX_KEY: usize = 1024;

pub(crate) fn invalid(error: InvalidField) -> Status {
    invalid_argument(&error.field, error.description)
}

pub(crate) fn uuid(field: &str, text: &str) -> Result<Uuid, Status> {
    convert::uuid(field, text).map_err(invalid)
}

pub(crate) fn optional_uuid(field: &str, text: &str) -> Result<Option<Uuid>, Status> {
    convert::optional_uuid(field, text).map_err(invalid)
}

/// Who asks for what.
pub(crate) fn context(context: Option<&v1::WorkContext>) -> Result<WorkContext, Status> {
    let context = context.ok_or_else(|| invalid_argument("context", "is required"))?;
    Ok(WorkContext {
        workspace: uuid("context.workspace_id", &context.workspace_id)?,
        op_id: uuid("context.op_id", &context.op_id)?,
        attempt: context.attempt,
        claim: claim(context)?,
    })
}

/// Which wc asks.
fn claim(context: &v1::WorkContext) -> Result<Claim, Status> {
    let epoch = epoch("context.epoch", context.epoch)?;
    // One that knows no shards sends no numbers.
    let shard = Shard::new(context.shard, context.shards.max(1)).ok_or_else(|| {
        invalid_argument("context.shard", "must be below context.shards, at most 64")
    })?;
    Ok(Claim::Wc(shard, epoch))
}

/// A leader's epoch.
pub(crate) fn epoch(field: &str, epoch: i64) -> Result<i64, Status> {
    if epoch < 1 {
        return Err(invalid_argument(field, "must be at least 1"));
    }
    Ok(epoch)
}

/// An image reference. Whether it is one is found out where it is pulled.
pub(crate) fn image(image: String) -> Result<String, Status> {
    if image.is_empty() {
        return Err(invalid_argument("image", "is required"));
    }
    Ok(image)
}

/// Upper bounds; absent means the host's defaults.
pub(crate) fn limits(limits: Option<&v1::Limits>) -> Result<Limits, Status> {
    let limits = limits.copied().unwrap_or_default();
    convert::limits_from("limits", &limits).map_err(invalid)
}

/// The grace of a stop.
pub(crate) fn grace(
    grace: Option<&prost_types::Duration>,
    default: Duration,
) -> Result<Duration, Status> {
    let Some(grace) = grace else {
        return Ok(default.min(MAX_GRACE));
    };
    let grace = duration("grace", grace)?;
    if grace > MAX_GRACE {
        return Err(invalid_argument("grace", "must be at most 5 minutes"));
    }
    Ok(grace)
}

/// A duration that is not negative.
pub(crate) fn duration(field: &str, duration: &prost_types::Duration) -> Result<Duration, Status> {
    convert::delta(field, duration)
        .map_err(invalid)?
        .to_std()
        .map_err(|_| invalid_argument(field, "must not be negative"))
}

/// What a marker says of the workspace.
pub(crate) fn label(label: Option<v1::WorkspaceLabel>) -> Result<v1::WorkspaceLabel, Status> {
    let label = label.unwrap_or_default();
    for (field, value) in [
        ("label.name", &label.name),
        ("label.owner", &label.owner),
        ("label.image", &label.image),
    ] {
        if value.len() > MAX_LABEL {
            return Err(invalid_argument(field, "must have at most 4096 bytes"));
        }
    }
    Ok(label)
}

/// Key of an archive's data, of this workspace.
pub(crate) fn archive_key(prefix: &str, key: String, workspace: Uuid) -> Result<String, Status> {
    const FIELD: &str = "archive_key";
    match layout::parse_key(prefix, &key) {
        Some(ParsedKey::Data { workspace_id, .. }) if workspace_id == workspace => Ok(key),
        Some(ParsedKey::Data { .. }) => Err(invalid_argument(
            FIELD,
            "must be an archive of the same workspace",
        )),
        _ if key.is_empty() => Err(invalid_argument(FIELD, "is required")),
        _ => Err(invalid_argument(
            FIELD,
            "must be the key of an archive's data object",
        )),
    }
}

/// What becomes of the home when its volume goes.
pub(crate) fn keep(
    prefix: &str,
    workspace: Uuid,
    request: v1::DeleteVolumeRequest,
) -> Result<Keep, Status> {
    let volume_id = optional_uuid("volume_id", &request.volume_id)?;
    if request.discard_home {
        return Ok(Keep::Discarded(volume_id));
    }
    let volume_id = volume_id
        .ok_or_else(|| invalid_argument("volume_id", "is required unless discard_home"))?;
    let key = archive_key(prefix, request.archive_key, workspace)?;
    let sha256 = request.sha256.to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(invalid_argument("sha256", "must be 64 hexadecimal digits"));
    }
    Ok(Keep::Archived {
        key,
        sha256,
        volume_id,
    })
}

/// Keys to delete, all under the prefix.
pub(crate) fn keys(prefix: &str, keys: &[String]) -> Result<(), Status> {
    if keys.len() > MAX_KEYS {
        return Err(invalid_argument("keys", "must be at most 1000"));
    }
    for (index, key) in keys.iter().enumerate() {
        let field = format!("keys[{index}]");
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(invalid_argument(&field, "must have 1 to 1024 bytes"));
        }
        if layout::parse_key(prefix, key).is_none() {
            return Err(invalid_argument(&field, "is outside the store's prefix"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(status: &Status) -> String {
        windlass_service::error::metadata_of(status, "field").unwrap_or_default()
    }

    #[test]
    fn a_context_names_what_is_wrong() {
        let id = Uuid::from_u128(1).to_string();
        let good = v1::WorkContext {
            workspace_id: id.clone(),
            op_id: id,
            attempt: 0,
            epoch: 1,
            ..v1::WorkContext::default()
        };
        assert!(context(Some(&good)).is_ok());
        assert_eq!(field_of(&context(None).unwrap_err()), "context");
        let bad = v1::WorkContext {
            op_id: "x".to_owned(),
            ..good.clone()
        };
        assert_eq!(field_of(&context(Some(&bad)).unwrap_err()), "context.op_id");
        let bad = v1::WorkContext {
            shard: 2,
            shards: 2,
            ..good.clone()
        };
        assert_eq!(field_of(&context(Some(&bad)).unwrap_err()), "context.shard");
        let bad = v1::WorkContext { epoch: 0, ..good };
        assert_eq!(field_of(&context(Some(&bad)).unwrap_err()), "context.epoch");
    }

    #[test]
    fn keys_stay_under_the_prefix() {
        assert!(keys("w/", &["w/x".to_owned()]).is_ok());
        let outside = keys("w/", &["w/x".to_owned(), "v/x".to_owned()]).unwrap_err();
        assert_eq!(field_of(&outside), "keys[1]");
        let many = vec!["w/x".to_owned(); MAX_KEYS + 1];
        assert_eq!(field_of(&keys("w/", &many).unwrap_err()), "keys");
    }

    #[test]
    fn a_home_is_not_given_up_by_omission() {
        let workspace = Uuid::from_u128(1);
        let request = v1::DeleteVolumeRequest::default();
        let refused = keep("", workspace, request).unwrap_err();
        assert_eq!(field_of(&refused), "volume_id");
        let request = v1::DeleteVolumeRequest {
            volume_id: workspace.to_string(),
            archive_key: layout::data_key("", Uuid::from_u128(2), workspace),
            ..v1::DeleteVolumeRequest::default()
        };
        let refused = keep("", workspace, request).unwrap_err();
        assert_eq!(field_of(&refused), "archive_key");
    }

    #[test]
    fn a_grace_is_bounded() {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        let default = Duration::from_secs(10);
        assert_eq!(grace(None, default).unwrap(), default);
        assert_eq!(grace(Some(&seconds(0)), default).unwrap(), Duration::ZERO);
        for bad in [301, -1] {
            assert_eq!(
                field_of(&grace(Some(&seconds(bad)), default).unwrap_err()),
                "grace"
            );
        }
    }
}
