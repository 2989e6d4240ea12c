//! Sizes as people write and read them: `64KiB`, `1MiB`; `12.3 MiB`.

const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];

/// Bytes: `1024`, `64KiB`, `1MiB`, `1GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a size such as 1024, 64KiB or 1MiB");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let count: u64 = trimmed[..digits].parse().map_err(|_| refused())?;
    let unit = trimmed[digits..].trim_start();
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
    count.checked_mul(*bytes).ok_or_else(refused)
}

/// `12.3 MiB`, `999 B`.
pub fn bytes_text(bytes: u64) -> String {
    match UNITS.iter().find(|(name, unit)| *unit > 1 && !name.is_empty() && bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("1024", 1_024), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1MB", "1.5MiB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes_text(999), "999 B");
        assert_eq!(bytes_text(12_900_000), "12.3 MiB");
    }
}
