//! Figures as people read them.

use k8s_openapi::jiff::Timestamp;

/// A number of bytes, to three digits.
pub fn bytes(count: i64) -> String {
    let count = u64::try_from(count).unwrap_or(0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scale: u64 = 1;
    while unit + 1 < units.len() && count / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    let whole = count / scale;
    if unit == 0 || whole >= 100 {
        return format!("{whole} {name}");
    }
    let tenth = (count % scale) * 10 / scale;
    format!("{whole}.{tenth} {name}")
}

/// How long ago something was, in its largest unit or two.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    span(seconds)
}

/// A span of seconds.
pub fn span(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// Lines in columns; the last one may be as long as it likes.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (65536 * 3 / 2, "96.0 KiB"),
            (200 << 20, "200 MiB"),
            (i64::MAX, "8191 PiB"),
            (-1, "0 B"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (90_000, "25 h"), (200_000, "2 d")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
