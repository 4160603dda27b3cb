use clap::Parser;

use super::*;

fn merged(flags: &[&str], yaml: &str) -> Result<Config, ConfigError> {
    let flags = Flags::try_parse_from([&["understudyd"], flags].concat()).unwrap();
    Config::merge(flags, file::parse("test.yaml".as_ref(), yaml)?)
}

const FILE: &str = "pool: /p\napi: unix:/api\nnbd: [\"unix:/nbd\"]\nlink: tcp:0.0.0.0:7001\n";

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let c = merged(&["--api", "tcp:127.0.0.1:7000", "--shards", "3"], FILE).unwrap();
    assert_eq!(c.api, Address::Tcp("127.0.0.1:7000".into()));
    assert_eq!(c.nbd, [Address::Unix("/nbd".into())]);
    assert_eq!((c.shards, c.io, c.limits), (3, Io::Auto, Limits::default()));
}

#[test]
fn unknown_keys_are_refused_by_name_and_place() {
    for yaml in ["pools: /p\n", "limits: {nbdConnection: 3}\n"] {
        let text = merged(&[], &format!("{FILE}{yaml}")).unwrap_err().to_string();
        assert!(text.contains("unknown field") && text.contains("line"), "{text}");
    }
}

#[test]
fn each_bad_value_is_refused_with_its_key() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&[], "api: unix:/a\n", "pool"),
        (&[], "pool: /p\n", "api"),
        (&["--api", "/run/sock"], FILE, "api"),
        (&["--nbd", "unix:/api"], FILE, "nbd"),
        (&["--shards", "0"], FILE, "shards"),
        (&["--io", "aio"], FILE, "io"),
        (&["--log-format", "xml"], FILE, "logFormat"),
        (&["--log-level", "a=b=c"], FILE, "logLevel"),
        (&[], "pool: /p\napi: unix:/a\nlimits: {groups: 0}\n", "limits.groups"),
    ];
    for (flags, yaml, key) in cases {
        let text = merged(flags, yaml).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{key}: ")), "{key}: {text}");
    }
}

#[test]
fn the_example_in_the_help_is_a_configuration() {
    let example = flags::EXAMPLE.split("FILE:\n").nth(1).unwrap();
    let lines = example.lines().map(|l| l.trim_start_matches("    "));
    let yaml = lines.collect::<Vec<_>>().join("\n");
    merged(&[], &yaml).unwrap();
}
