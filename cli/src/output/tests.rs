// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

struct Pair(&'static str, Option<u32>);

impl Row for Pair {
    const HEADER: &[&str] = &["NAME", "PID"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::new(self.0), Cell::optional(self.1).right()]
    }
}

const PAIRS: &[Pair] = &[Pair("a rather long name", Some(17)), Pair("", None)];

fn plain(width: Width, legend: bool) -> Output {
    Output {
        json: None,
        json_events: Json::Short,
        legend,
        quiet: false,
        pager: false,
        width,
        styled: false,
        utf8: true,
    }
}

#[test]
fn a_table_is_as_wide_as_it_has_to_be() {
    let text = plain(Width::Unlimited, true).render(PAIRS);
    assert_eq!(
        text,
        "NAME               PID\na rather long name  17\n-                    -"
    );
}

#[test]
fn without_legend_only_rows_remain() {
    let text = plain(Width::Unlimited, false).render(PAIRS);
    assert_eq!(text, "a rather long name 17\n-                   -");
}

#[test]
fn a_narrow_terminal_cuts_and_never_wraps() {
    for columns in 1..24 {
        let text = plain(Width::Columns(columns), true).render(PAIRS);
        assert_eq!(text.lines().count(), 3, "{columns}: {text}");
    }
    let text = plain(Width::Columns(16), true).render(PAIRS);
    assert!(
        text.lines().all(|line| line.chars().count() <= 16),
        "{text}"
    );
    assert!(text.contains('…'), "{text}");
    let ascii = Output {
        utf8: false,
        ..plain(Width::Columns(16), true)
    };
    let text = ascii.render(PAIRS);
    assert!(text.contains("...") && text.is_ascii(), "{text}");
}

#[test]
fn styles_are_for_those_who_want_them() {
    let styled = Output {
        styled: true,
        ..plain(Width::Unlimited, true)
    }
    .render(PAIRS);
    assert!(styled.contains("\x1b["), "{styled:?}");
    assert!(!plain(Width::Unlimited, true).render(PAIRS).contains('\x1b'));
}

#[test]
fn a_line_is_cut_to_its_room() {
    let output = plain(Width::Columns(6), true);
    assert_eq!(output.fit("größer"), "größer");
    assert_eq!(output.fit("größere"), "größe…");
    let ascii = Output {
        utf8: false,
        ..plain(Width::Columns(6), true)
    };
    assert_eq!(ascii.fit("longer than that"), "lon...");
    assert_eq!(output.fit("a\x1bb"), r"a\x1bb");
    assert_eq!(plain(Width::Unlimited, true).fit("größere"), "größere");
}

#[test]
fn painted_text_cannot_steer_the_terminal() {
    let styled = Output {
        styled: true,
        ..plain(Width::Unlimited, true)
    };
    assert_eq!(
        styled.paint("a\x1b[2J", Emphasis::Bad).0,
        "\x1b[0;1;31ma\\x1b[2J\x1b[0m"
    );
    assert_eq!(styled.paint("a", Emphasis::None).0, "a");
    assert_eq!(
        plain(Width::Unlimited, true).paint("a", Emphasis::Good).0,
        "a"
    );
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    assert_eq!(Cell::new("a\x1b[2Jb\n\u{9b}c").text, r"a\x1b[2Jb\x0a\x9bc");
    assert_eq!(Cell::new("Tästatur").text, "Tästatur");
}

#[test]
fn json_on_a_terminal_cannot_steer_it_and_means_the_same() {
    let value = "a\x1b\x7f\u{9b}2J\u{202e}\n\tä";
    for json in [Json::Short, Json::Pretty] {
        let text = json.text(&[value]).expect("JSON");
        assert!(
            !text.contains(|c| is_unprintable(c) && !matches!(c, '\n' | '\t')),
            "{text:?}"
        );
        let back: Vec<String> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back, [value]);
    }
}

#[test]
fn columns_and_terminal_decide_the_width() {
    assert_eq!(width(Some("100"), false), Width::Columns(100));
    assert_eq!(width(Some("100"), true), Width::Columns(100));
    assert_eq!(width(Some("0"), true), Width::Terminal);
    assert_eq!(width(Some("wide"), false), Width::Unlimited);
    assert_eq!(width(None, true), Width::Terminal);
    assert_eq!(width(None, false), Width::Unlimited);
}

#[test]
fn colour_follows_terminal_and_environment() {
    assert!(styled(None, None, Some("xterm"), true));
    assert!(styled(None, Some(""), None, true));
    assert!(!styled(None, None, Some("xterm"), false));
    assert!(!styled(None, None, Some("dumb"), true));
    assert!(!styled(None, Some("1"), Some("xterm"), true));
    assert!(styled(Some("1"), Some("1"), None, false));
    assert!(!styled(Some("0"), None, Some("xterm"), true));
}

#[test]
fn j_is_pretty_on_a_terminal_only() {
    let args = |json, auto_json| OutputArgs {
        json,
        auto_json,
        ..OutputArgs::default()
    };
    assert_eq!(json_mode(&args(None, true), true), Some(Json::Pretty));
    assert_eq!(json_mode(&args(None, true), false), Some(Json::Short));
    assert_eq!(
        json_mode(&args(Some(JsonMode::Pretty), false), false),
        Some(Json::Pretty)
    );
    assert_eq!(json_mode(&args(Some(JsonMode::Off), false), true), None);
    assert_eq!(json_mode(&args(None, false), true), None);
}
