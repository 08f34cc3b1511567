//! Listings, answered from memory alone.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::{Answer, Api, etag, length, ok};
use crate::bucket::Entry;
use crate::listing::{Cursor, Page, common_prefix, page, url_encode};
use crate::store::timestamp;

/// S3's page size, and the most a client may ask for.
const MAX: i32 = 1000;

fn limit(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.unwrap_or(MAX).min(MAX);
    usize::try_from(asked).map_err(|_| s3_error!(InvalidArgument, "a negative page size"))
}

/// Writes keys as the client asked for them.
struct Encoder(bool);

impl Encoder {
    fn new(encoding: Option<&EncodingType>) -> Self {
        Self(encoding.is_some_and(|e| e.as_str() == EncodingType::URL))
    }

    fn text(&self, text: String) -> String {
        if self.0 { url_encode(&text) } else { text }
    }

    fn option(&self, text: Option<String>) -> Option<String> {
        text.map(|text| self.text(text))
    }

    fn prefixes(&self, prefixes: Vec<String>) -> Option<Vec<CommonPrefix>> {
        let prefixes = prefixes.into_iter().map(|prefix| CommonPrefix {
            prefix: Some(self.text(prefix)),
        });
        Some(prefixes.collect())
    }

    fn objects(&self, items: Vec<(String, Arc<Entry>)>) -> Option<Vec<Object>> {
        let objects = items
            .into_iter()
            .map(|(key, entry)| self.object(key, &entry));
        Some(objects.collect())
    }

    fn object(&self, key: String, entry: &Entry) -> Object {
        let algorithms = entry.sums.algorithms();
        Object {
            key: Some(self.text(key)),
            e_tag: Some(etag(&entry.etag)),
            size: Some(length(entry.size)),
            last_modified: Some(timestamp(entry.modified_ms)),
            checksum_algorithm: (!algorithms.is_empty()).then_some(algorithms),
            checksum_type: entry.sums.kind(),
            storage_class: Some(ObjectStorageClass::from_static(
                ObjectStorageClass::STANDARD,
            )),
            ..Default::default()
        }
    }
}

impl Api {
    pub(super) fn list_v2(&self, input: ListObjectsV2Input) -> Answer<ListObjectsV2Output> {
        let bucket = self.bucket(&input.bucket)?;
        let max = limit(input.max_keys)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|d| !d.is_empty());
        let cursor = match &input.continuation_token {
            Some(token) => Cursor::from_token(token)?,
            None => Cursor::from_marker(input.start_after.clone(), prefix, delimiter),
        };
        let found: Page<_> = page(&bucket.objects(), prefix, delimiter, &cursor, max);
        let encoder = Encoder::new(input.encoding_type.as_ref());
        let count = found.items.len() + found.prefixes.len();
        ok(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: i32::try_from(count).ok(),
            max_keys: i32::try_from(max).ok(),
            is_truncated: Some(found.next.is_some()),
            next_continuation_token: found.next.as_ref().and_then(Cursor::token),
            contents: encoder.objects(found.items),
            common_prefixes: encoder.prefixes(found.prefixes),
            continuation_token: input.continuation_token,
            start_after: encoder.option(input.start_after),
            prefix: Some(encoder.text(input.prefix.unwrap_or_default())),
            delimiter: encoder.option(input.delimiter),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) fn list_v1(&self, input: ListObjectsInput) -> Answer<ListObjectsOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let max = limit(input.max_keys)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|d| !d.is_empty());
        let marker = input.marker.clone().filter(|marker| !marker.is_empty());
        let cursor = Cursor::from_marker(marker, prefix, delimiter);
        let found: Page<_> = page(&bucket.objects(), prefix, delimiter, &cursor, max);
        let encoder = Encoder::new(input.encoding_type.as_ref());
        ok(ListObjectsOutput {
            name: Some(input.bucket),
            max_keys: i32::try_from(max).ok(),
            is_truncated: Some(found.next.is_some()),
            next_marker: encoder.option(found.next.and_then(Cursor::into_marker)),
            contents: encoder.objects(found.items),
            common_prefixes: encoder.prefixes(found.prefixes),
            marker: Some(encoder.text(input.marker.unwrap_or_default())),
            prefix: Some(encoder.text(input.prefix.unwrap_or_default())),
            delimiter: encoder.option(input.delimiter),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) fn list_uploads(
        &self,
        input: ListMultipartUploadsInput,
    ) -> Answer<ListMultipartUploadsOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let max = limit(input.max_uploads)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|d| !d.is_empty());
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let id_marker = input.upload_id_marker.clone().unwrap_or_default();
        let encoder = Encoder::new(input.encoding_type.as_ref());
        let (mut uploads, mut prefixes) = (Vec::new(), Vec::<String>::new());
        let mut last = None;
        let mut truncated = false;
        for ((key, id), upload) in bucket.uploads().iter() {
            let seen = *key < key_marker
                || (*key == key_marker && (id_marker.is_empty() || *id <= id_marker));
            if seen && !key_marker.is_empty() || !key.starts_with(&prefix) {
                continue;
            }
            let common = common_prefix(key, &prefix, delimiter);
            if common.is_some_and(|common| {
                prefixes.last().is_some_and(|p| p == common) || key_marker == common
            }) {
                continue;
            }
            if uploads.len() + prefixes.len() == max {
                truncated = max > 0;
                break;
            }
            if let Some(common) = common {
                prefixes.push(common.to_owned());
                last = Some((common.to_owned(), None));
                continue;
            }
            last = Some((key.clone(), Some(id.clone())));
            let algorithm = upload.intent.algorithm;
            uploads.push(MultipartUpload {
                key: Some(encoder.text(key.clone())),
                upload_id: Some(id.clone()),
                initiated: Some(timestamp(upload.intent.initiated_ms)),
                checksum_algorithm: algorithm.map(|a| a.dto()),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                ..Default::default()
            });
        }
        let (next_key, next_id) = last.filter(|_| truncated).unzip();
        ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            uploads: Some(uploads),
            common_prefixes: encoder.prefixes(prefixes),
            is_truncated: Some(truncated),
            next_key_marker: encoder.option(next_key),
            next_upload_id_marker: next_id.flatten(),
            max_uploads: i32::try_from(max).ok(),
            key_marker: encoder.option(input.key_marker),
            upload_id_marker: input.upload_id_marker,
            prefix: encoder.option(input.prefix),
            delimiter: encoder.option(input.delimiter),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) fn list_parts_of(&self, input: ListPartsInput) -> Answer<ListPartsOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let upload = self.store.upload(&bucket, &input.key, &input.upload_id)?;
        let max = limit(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or(0);
        let mut parts: Vec<Part> = upload
            .parts()
            .into_iter()
            .filter(|(number, _)| i32::from(*number) > after)
            .map(|(number, meta)| Part {
                part_number: Some(number.into()),
                e_tag: Some(etag(&meta.etag)),
                size: Some(length(meta.size)),
                last_modified: Some(timestamp(meta.modified_ms)),
                checksum_crc32: meta.sums.crc32,
                checksum_crc32c: meta.sums.crc32c,
                checksum_crc64nvme: meta.sums.crc64nvme,
                checksum_sha1: meta.sums.sha1,
                checksum_sha256: meta.sums.sha256,
            })
            .collect();
        let truncated = parts.len() > max;
        parts.truncate(max);
        let next = parts.last().and_then(|part| part.part_number);
        ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(truncated),
            next_part_number_marker: next.filter(|_| truncated),
            part_number_marker: input.part_number_marker,
            max_parts: i32::try_from(max).ok(),
            parts: Some(parts),
            checksum_algorithm: upload.intent.algorithm.map(|a| a.dto()),
            ..Default::default()
        })
    }
}
