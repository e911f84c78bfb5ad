//! Mistakes in `[paid]` and `[store]`.

use super::*;

#[test]
fn deadlines_and_sizes_that_contradict_one_another() {
    expect_after(
        GOOD,
        r#"[pricing]
buckets = ["1MB", "10MB", "10MB"]
quote_ttl = "30s"
refresh_before = "30s"
[paid]
max_timeout = "60s"
work_timeout = "40s"
settle_margin = "20s"
result_max = "32MiB"
max_raw_body = "64MiB"
max_document = "1GiB"
retention = "10s"
lease = "10ms"
max_payment_header = "64KiB"
max_files = 65
result_file_max = "2GiB"
"#,
        &[
            (2, 1, "pricing.buckets", "not in ascending order", "sort"),
            (4, 1, "pricing.refresh_before", "less than quote_ttl", "tenth"),
            (7, 1, "paid.work_timeout", "less than max_timeout (60s)", "raise max_timeout"),
            (9, 1, "paid.result_max", "16MiB", "result_file_max"),
            (10, 1, "paid.max_raw_body", "have no price", "add a bucket"),
            (11, 1, "paid.max_document", "max_body_memory", "raise"),
            (12, 1, "paid.retention", "forgotten", "max_timeout"),
            (13, 1, "paid.lease", "taken over", "15s"),
            (14, 1, "paid.max_payment_header", "max_header_bytes", "raise"),
            (15, 1, "paid.max_files", "a payment to a provider", "64"),
            (16, 1, "paid.result_file_max", "would not fit result_files", "raise"),
        ],
    );
}

#[test]
fn store_settings_belong_to_their_kind() {
    expect_after(GOOD, "[store]\nkind = \"redis\"\n", &[(2, 1, "store.kind", "needs `url`", "redis://")]);
    expect_after(
        GOOD,
        "[store]\nurl = \"redis://h\"\n",
        &[(2, 1, "store.url", "means nothing to the embedded store", "kind = \"redis\"")],
    );
    let secret = "[store]\nkind = \"redis\"\nurl = \"http://:hunter2@h\"\n";
    let mistakes = load(&format!("{GOOD}{secret}")).unwrap_err();
    assert!(!mistakes.to_string().contains("hunter2"));
}

#[test]
fn old_jobs_are_archived_beside_an_embedded_store_or_where_it_is_said() {
    let redis = "[store]\nkind = \"redis\"\nurl = \"redis://h\"\n";
    let archive = |text: &str| load(&format!("{GOOD}{text}")).unwrap().config.archive();
    for (text, folder) in [
        ("", Some("data/galaksio.redb.archive")),
        ("[store]\npath = \"/srv/jobs\"\n", Some("/srv/jobs.archive")),
        ("[paid]\narchive = \"/srv/old\"\n", Some("/srv/old")),
        ("[paid]\narchive = \"\"\n", None),
        (redis, None),
        (&format!("{redis}[paid]\narchive = \"/srv/old\"\n"), Some("/srv/old")),
    ] {
        assert_eq!(archive(text), folder.map(Into::into), "{text}");
    }
    expect_after(GOOD, "[paid]\narchive = 3\n", &[(2, 11, "paid.archive", "found a number", "quotes")]);
}

#[test]
fn answers_are_kept_in_files_if_they_are_too_large_for_the_store_or_not_at_all() {
    let largest = |text: &str| load(&format!("{GOOD}[paid]\n{text}\n")).unwrap().config.paid.result_file_max;
    assert_eq!((largest(""), largest("result_file_max = \"\"")), (Some(64 << 20), None));
    expect_after(
        GOOD,
        "[paid]\nresult_file_max = \"1MiB\"\n",
        &[(2, 1, "paid.result_file_max", "kept in the store", "write more")],
    );
    expect_after(
        GOOD,
        "[paid]\nresult_file_max = 0\n",
        &[(2, 19, "paid.result_file_max", "size of 0", "64KiB")],
    );
}

#[test]
fn the_price_above_which_work_is_charged_upfront_is_money() {
    for (value, reason) in [("5", "expected dollars"), ("\"a lot\"", "not an amount of dollars")] {
        let text = format!("[paid]\nupfront_above = {value}\n");
        expect_after(PAYABLE, &text, &[(2, 17, "paid.upfront_above", reason, "such as")]);
    }
}
