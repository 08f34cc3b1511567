//! Digests a client announced, and whether the bytes that came match them.
//!
//! Invariant: whatever a client said about its bytes (Content-MD5, any x-amz-checksum-*, in a header or in
//! a trailer) is compared with what arrived before the bytes can become an object.

use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, ChecksumAlgorithm, ChecksumType};
use s3s::{S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

/// S3's checksums of an object in base64, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sums {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crc32: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crc64nvme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// Whether these are checksums of checksums of parts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) composite: bool,
}

/// One of S3's checksum algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    pub(crate) fn parse(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|a| a.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| s3_error!(InvalidRequest, "unknown checksum algorithm {name}"))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => ChecksumAlgorithm::CRC32,
            Self::Crc32c => ChecksumAlgorithm::CRC32C,
            Self::Crc64nvme => ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => ChecksumAlgorithm::SHA1,
            Self::Sha256 => ChecksumAlgorithm::SHA256,
        }
    }

    pub(crate) fn dto(self) -> ChecksumAlgorithm {
        ChecksumAlgorithm::from_static(self.name())
    }

    fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }
}

impl Sums {
    pub(crate) fn get(&self, algorithm: Algorithm) -> Option<&String> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_ref(),
            Algorithm::Crc32c => self.crc32c.as_ref(),
            Algorithm::Crc64nvme => self.crc64nvme.as_ref(),
            Algorithm::Sha1 => self.sha1.as_ref(),
            Algorithm::Sha256 => self.sha256.as_ref(),
        }
    }

    pub(crate) fn set(&mut self, algorithm: Algorithm, value: String) {
        let slot = match algorithm {
            Algorithm::Crc32 => &mut self.crc32,
            Algorithm::Crc32c => &mut self.crc32c,
            Algorithm::Crc64nvme => &mut self.crc64nvme,
            Algorithm::Sha1 => &mut self.sha1,
            Algorithm::Sha256 => &mut self.sha256,
        };
        *slot = Some(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        Algorithm::ALL.into_iter().all(|a| self.get(a).is_none())
    }

    /// Which algorithms are present.
    pub(crate) fn algorithms(&self) -> Vec<ChecksumAlgorithm> {
        Algorithm::ALL
            .into_iter()
            .filter(|a| self.get(*a).is_some())
            .map(Algorithm::dto)
            .collect()
    }

    /// S3's name for how these were made; none where there are none.
    pub(crate) fn kind(&self) -> Option<ChecksumType> {
        (!self.is_empty()).then(|| {
            ChecksumType::from_static(if self.composite {
                ChecksumType::COMPOSITE
            } else {
                ChecksumType::FULL_OBJECT
            })
        })
    }

    /// Refuses when any checksum present in both differs.
    pub(crate) fn must_match(&self, expected: &Self) -> S3Result<()> {
        for algorithm in Algorithm::ALL {
            if let Some(wanted) = expected.get(algorithm)
                && self.get(algorithm) != Some(wanted)
            {
                return Err(s3_error!(
                    BadDigest,
                    "the {} given did not match the data received",
                    algorithm.name()
                ));
            }
        }
        Ok(())
    }
}

impl From<Checksum> for Sums {
    fn from(sums: Checksum) -> Self {
        Self {
            crc32: sums.checksum_crc32,
            crc32c: sums.checksum_crc32c,
            crc64nvme: sums.checksum_crc64nvme,
            sha1: sums.checksum_sha1,
            sha256: sums.checksum_sha256,
            composite: false,
        }
    }
}

/// Hashes bytes as they pass: MD5 (the ETag) always, the others as asked.
pub(crate) struct Hasher {
    md5: Md5,
    sums: ChecksumHasher,
}

/// What [`Hasher`] found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) md5: [u8; 16],
    pub(crate) sums: Sums,
}

impl Hasher {
    pub(crate) fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut sums = ChecksumHasher::default();
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Crc32 => sums.crc32 = Some(Default::default()),
                Algorithm::Crc32c => sums.crc32c = Some(Default::default()),
                Algorithm::Crc64nvme => sums.crc64nvme = Some(Default::default()),
                Algorithm::Sha1 => sums.sha1 = Some(Default::default()),
                Algorithm::Sha256 => sums.sha256 = Some(Default::default()),
            }
        }
        Self {
            md5: Md5::new(),
            sums,
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        self.md5.update(data);
        self.sums.update(data);
    }

    pub(crate) fn finish(self) -> Found {
        Found {
            md5: self.md5.finalize(),
            sums: self.sums.finalize().into(),
        }
    }
}

/// What a request says about its own body.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Content-MD5, base64.
    pub(crate) md5: Option<String>,
    /// Checksums given in headers.
    pub(crate) sums: Sums,
    /// An algorithm named without a value (it may follow in a trailer).
    pub(crate) named: Option<Algorithm>,
    /// Algorithms announced in x-amz-trailer: their values must come.
    pub(crate) in_trailer: Vec<Algorithm>,
    /// The body's length where the request says it.
    pub(crate) size: Option<u64>,
}

impl Expected {
    /// Reads what headers say beyond the typed fields: announced trailers and the decoded length.
    pub(crate) fn read_headers(&mut self, headers: &hyper::HeaderMap) {
        let trailers = headers
            .get_all("x-amz-trailer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for name in trailers {
            self.in_trailer.extend(
                Algorithm::ALL
                    .into_iter()
                    .find(|a| a.header().eq_ignore_ascii_case(name.trim())),
            );
        }
        if let Some(decoded) = headers.get("x-amz-decoded-content-length") {
            self.size = decoded.to_str().ok().and_then(|v| v.parse().ok());
        }
    }

    /// Of which algorithms the request gives, names or announces a checksum.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(|a| {
            self.sums.get(*a).is_some() || self.named == Some(*a) || self.in_trailer.contains(a)
        })
    }

    /// A hasher of everything needed to verify, and to answer what was asked for.
    pub(crate) fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithms())
    }

    /// Compares; to be called when the body has been read to its end.
    pub(crate) fn verify(
        mut self,
        found: &Found,
        size: u64,
        trailers: Option<&TrailingHeaders>,
    ) -> S3Result<()> {
        if self.size.is_some_and(|wanted| wanted != size) {
            return Err(s3_error!(
                IncompleteBody,
                "the body does not have the length announced"
            ));
        }
        if let Some(trailers) = trailers.and_then(TrailingHeaders::take) {
            for algorithm in Algorithm::ALL {
                if let Some(value) = trailers.get(algorithm.header()) {
                    let value = value
                        .to_str()
                        .map_err(|_| s3_error!(InvalidRequest, "malformed trailer"))?;
                    self.sums.set(algorithm, value.to_owned());
                }
            }
        }
        if self.in_trailer.iter().any(|a| self.sums.get(*a).is_none()) {
            return Err(s3_error!(
                InvalidRequest,
                "a checksum announced in x-amz-trailer did not come"
            ));
        }
        if let Some(md5) = &self.md5 {
            // Compared in the encoded form S3 prescribes; anything else is not a Content-MD5.
            if *md5 != base64(&found.md5) {
                return Err(s3_error!(
                    BadDigest,
                    "the Content-MD5 given did not match the data received"
                ));
            }
        }
        found.sums.must_match(&self.sums)
    }
}

/// The checksum S3 gives a multipart object by default: that of its parts' checksums, and their number.
pub(crate) fn composite(algorithm: Algorithm, parts: &[&Sums]) -> Option<String> {
    let mut hasher = Hasher::new([algorithm]);
    for part in parts {
        hasher.update(&unbase64(part.get(algorithm)?)?);
    }
    let sums = hasher.finish().sums;
    Some(format!("{}-{}", sums.get(algorithm)?, parts.len()))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .zip([16, 8, 0])
            .fold(0u32, |word, (byte, shift)| word | u32::from(*byte) << shift);
        for index in 0..4 {
            if index <= chunk.len() {
                out.push(char::from(
                    ALPHABET[(word >> (18 - 6 * index)) as usize & 63],
                ));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0u32);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        word = word << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_known_values() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn an_announced_trailer_must_come() {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("x-amz-trailer", "x-amz-checksum-crc32".parse().unwrap());
        let mut expected = Expected::default();
        expected.read_headers(&headers);
        let found = expected.hasher().finish();
        assert!(found.sums.crc32.is_some());
        assert!(expected.verify(&found, 0, None).is_err());
    }
}
