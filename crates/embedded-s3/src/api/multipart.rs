//! Operations of multipart uploads.

use std::time::Duration;

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::objects::{attributes, expected};
use super::{Answer, Api, etag, ok};
use crate::digest::{Algorithm, Expected, Sums};
use crate::ingest;
use crate::record::{Attributes, Meta};
use crate::store::{Condition, internal, now_ms};
use crate::upload::{Intent, Wanted};

const MAX_PART: i32 = 10_000;
/// A completion slower than this is answered as S3 does: headers at once, the outcome in the body.
const PROMPT: Duration = Duration::from_secs(3);

impl Api {
    pub(super) async fn create_multipart(
        &self,
        mut input: CreateMultipartUploadInput,
    ) -> Answer<CreateMultipartUploadOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let algorithm = match &input.checksum_algorithm {
            Some(name) => Some(Algorithm::parse(name.as_str())?),
            None => None,
        };
        let full_object = match &input.checksum_type {
            Some(kind) => kind.as_str() == ChecksumType::FULL_OBJECT,
            // S3 knows no checksum of checksums for this one.
            None => algorithm == Some(Algorithm::Crc64nvme),
        };
        let intent = Intent {
            id: uuid::Uuid::new_v4().simple().to_string(),
            key: input.key.clone(),
            initiated_ms: now_ms(),
            attributes: attributes!(input),
            algorithm,
            full_object,
        };
        let upload = self
            .blocking(move |store| store.create_upload(&bucket, intent))
            .await?;
        ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.intent.id.clone()),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: algorithm.map(|_| kind(full_object)),
            ..Default::default()
        })
    }

    pub(super) async fn put_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> Answer<UploadPartOutput> {
        let bucket = self.bucket(&req.input.bucket)?;
        let upload = self
            .store
            .upload(&bucket, &req.input.key, &req.input.upload_id)?;
        let number = part_number(req.input.part_number)?;
        let mut expected = expected!(req);
        let named = upload.intent.algorithm;
        if let Some(other) = expected.algorithms().find(|a| named != Some(*a)) {
            return Err(s3_error!(
                InvalidRequest,
                "checksum type mismatch: the upload has {}, the part {}",
                named.map_or("none", Algorithm::name),
                other.name()
            ));
        }
        // The finished object's checksum is made of those of its parts, given by the client or not.
        expected.named = named;
        let body = req.input.body.take();
        let staged =
            ingest::receive(&self.store, body, expected, req.trailing_headers.as_ref()).await?;
        let meta = self
            .blocking(move |store| store.put_part(&bucket, &upload, number, staged))
            .await?;
        ok(UploadPartOutput {
            e_tag: Some(etag(&meta.etag)),
            checksum_crc32: meta.sums.crc32,
            checksum_crc32c: meta.sums.crc32c,
            checksum_crc64nvme: meta.sums.crc64nvme,
            checksum_sha1: meta.sums.sha1,
            checksum_sha256: meta.sums.sha256,
            ..Default::default()
        })
    }

    pub(super) async fn complete_multipart(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let upload = match self.store.upload(&bucket, &input.key, &input.upload_id) {
            Ok(upload) => upload,
            Err(error) => {
                // A repeated completion whose first answer was lost.
                return match self.completed_before(&input).await {
                    Some(meta) => ok(completed(&input.bucket, &meta)),
                    None => Err(error),
                };
            }
        };
        let wanted = wanted(input.multipart_upload)?;
        let expected = Expected {
            sums: Sums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
                composite: false,
            },
            size: input.mpu_object_size.and_then(|size| size.try_into().ok()),
            ..Expected::default()
        };
        let condition = Condition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
        };
        let store = self.store.clone();
        let name = input.bucket;
        let mut work = tokio::task::spawn_blocking(move || {
            let meta = store.complete_upload(&bucket, &upload, &wanted, expected, &condition)?;
            Ok(completed(&name, &meta))
        });
        match tokio::time::timeout(PROMPT, &mut work).await {
            Ok(done) => ok(done.map_err(internal)??),
            Err(_) => ok(CompleteMultipartUploadOutput {
                future: Some(Box::pin(async move { work.await.map_err(internal)? })),
                ..Default::default()
            }),
        }
    }

    async fn completed_before(&self, input: &CompleteMultipartUploadInput) -> Option<Meta> {
        let bucket = self.bucket(&input.bucket).ok()?;
        let key = input.key.clone();
        let (_, meta) = self
            .blocking(move |store| store.open_object(&bucket, &key))
            .await
            .ok()?;
        (meta.upload_id.as_ref() == Some(&input.upload_id)).then_some(meta)
    }
}

fn kind(full_object: bool) -> ChecksumType {
    ChecksumType::from_static(if full_object {
        ChecksumType::FULL_OBJECT
    } else {
        ChecksumType::COMPOSITE
    })
}

fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number)
        .ok()
        .filter(|_| (1..=MAX_PART).contains(&number))
        .ok_or_else(|| s3_error!(InvalidArgument, "a part number is 1 to {MAX_PART}"))
}

fn wanted(list: Option<CompletedMultipartUpload>) -> S3Result<Vec<Wanted>> {
    let parts = list.and_then(|list| list.parts).unwrap_or_default();
    parts
        .into_iter()
        .map(|part| {
            Ok(Wanted {
                number: part_number(part.part_number.unwrap_or(0))?,
                etag: part.e_tag.map(ETag::into_value),
                sums: Sums {
                    crc32: part.checksum_crc32,
                    crc32c: part.checksum_crc32c,
                    crc64nvme: part.checksum_crc64nvme,
                    sha1: part.checksum_sha1,
                    sha256: part.checksum_sha256,
                    composite: false,
                },
            })
        })
        .collect()
}

fn completed(bucket: &str, meta: &Meta) -> CompleteMultipartUploadOutput {
    CompleteMultipartUploadOutput {
        bucket: Some(bucket.to_owned()),
        key: Some(meta.key.clone()),
        location: Some(format!("/{bucket}/{}", meta.key)),
        e_tag: Some(etag(&meta.etag)),
        checksum_type: meta.sums.kind(),
        checksum_crc32: meta.sums.crc32.clone(),
        checksum_crc32c: meta.sums.crc32c.clone(),
        checksum_crc64nvme: meta.sums.crc64nvme.clone(),
        checksum_sha1: meta.sums.sha1.clone(),
        checksum_sha256: meta.sums.sha256.clone(),
        ..Default::default()
    }
}
