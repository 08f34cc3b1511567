//! Values as people write and read them: durations, sizes, processors, ages. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

const BINARY: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// How long a workspace may stay idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Whatever the server's default is.
    Default,
    /// For ever.
    Never,
    /// So long.
    After(Duration),
}

impl Ttl {
    /// As the wire has it: absent is the default, zero is never.
    pub fn to_wire(self) -> Option<prost_types::Duration> {
        match self {
            Self::Default => None,
            Self::Never => Some(prost_types::Duration::default()),
            Self::After(duration) => Some(wire_duration(duration)),
        }
    }
}

/// A duration for the wire.
pub fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().min(999_999_999) as i32,
    }
}

/// Reads `500ms`, `10s`, `5m`, `2h`, `7d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("unknown unit {unit:?}; use ms, s, m, h or d")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| "expected a whole number and a unit, such as 10s, 5m, 2h or 7d".to_owned())?;
    count
        .checked_mul(factor)
        .map(Duration::from_millis)
        .ok_or_else(|| "too long".to_owned())
}

/// Reads a TTL: a duration, `never` or `default`.
pub fn parse_ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "default" => Ok(Ttl::Default),
        "never" => Ok(Ttl::Never),
        _ => Ok(match parse_duration(text)? {
            Duration::ZERO => Ttl::Never,
            duration => Ttl::After(duration),
        }),
    }
}

/// Reads an interval; `off` is zero.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Ok(Duration::ZERO),
        _ => parse_duration(text),
    }
}

/// Reads processors: `1.5` or `1500m`, in thousandths; 0 means the host's default.
pub fn parse_cpu(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is no number of processors; use 2, 0.5 or 500m");
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().map_err(|_| bad());
    }
    let cores: f64 = text.parse().map_err(|_| bad())?;
    let millis = (cores * 1000.0).round();
    // NaN is in no range.
    if !(0.0..=1_024_000.0).contains(&millis) || (cores > 0.0 && millis < 1.0) {
        return Err(bad());
    }
    Ok(millis as u32)
}

/// Reads a size in bytes: `2GiB`, `512M`, `1048576`. K, M, G and T are powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size; use 512MiB, 2GiB or a number of bytes");
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let exponent = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(bad()),
    };
    let scale = 1_u64 << (10 * exponent);
    if !number.contains('.') {
        let whole: Option<u64> = number.parse().ok();
        return whole.and_then(|n| n.checked_mul(scale)).ok_or_else(bad);
    }
    let number: f64 = number.parse().map_err(|_| bad())?;
    Ok((number * scale as f64) as u64)
}

/// `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", BINARY[unit])
    }
}

/// `45s`, `3m12s`, `5h`, `12d`: two units at most.
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let pair = |big: u64, unit: char, small: u64, lesser: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{lesser}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => pair(seconds / 60, 'm', seconds % 60, 's'),
        3600..86_400 => pair(seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
        _ => pair(seconds / 86_400, 'd', seconds % 86_400 / 3600, 'h'),
    }
}

/// A timestamp of the wire, if it is one.
pub fn time(at: Option<&prost_types::Timestamp>) -> Option<DateTime<Utc>> {
    let at = at?;
    DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)
}

/// How long ago, or `-`.
pub fn ago(at: Option<&prost_types::Timestamp>, now: DateTime<Utc>) -> String {
    match time(at) {
        None => "-".to_owned(),
        Some(at) => duration((now - at).to_std().unwrap_or_default()),
    }
}

/// `in 3m` or `3m ago`.
pub fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (at - now).to_std() {
        Ok(ahead) => format!("in {}", duration(ahead)),
        Err(_) => format!("{} ago", duration((now - at).to_std().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_both_ways() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "s", "-1s", "1.5h", "3w", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m12s"),
            (18_000, "5h"),
            (90_000, "1d1h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn ttls() {
        assert_eq!(parse_ttl("never"), Ok(Ttl::Never));
        assert_eq!(parse_ttl("0"), Ok(Ttl::Never));
        assert_eq!(parse_ttl("default").unwrap().to_wire(), None);
        assert_eq!(parse_ttl("10m").unwrap().to_wire().unwrap().seconds, 600);
        assert_eq!(parse_ttl("never").unwrap().to_wire().unwrap().seconds, 0);
        assert_eq!(parse_interval("off"), Ok(Duration::ZERO));
        assert_eq!(parse_interval("15m"), Ok(Duration::from_secs(900)));
        assert!(parse_interval("never").is_err());
    }

    #[test]
    fn processors_and_sizes() {
        assert_eq!(parse_cpu("1.5"), Ok(1500));
        assert_eq!(parse_cpu("250m"), Ok(250));
        assert_eq!(parse_cpu("0"), Ok(0));
        for bad in ["-1", "NaN", "many", "0.0001", "1e9"] {
            assert!(parse_cpu(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        assert_eq!(parse_bytes("7"), Ok(7));
        for bad in ["", "-1", "1X", "GiB", "99999999999999999999"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn ages() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let at = prost_types::Timestamp {
            seconds: 999_900,
            nanos: 0,
        };
        assert_eq!(ago(Some(&at), now), "1m40s");
        assert_eq!(ago(None, now), "-");
        assert_eq!(relative(now + chrono::TimeDelta::minutes(3), now), "in 3m");
        assert_eq!(relative(now - chrono::TimeDelta::minutes(3), now), "3m ago");
    }
}
