//! Mistakes in `[[provider]]`.

use super::*;

/// A provider that is right, without its kind.
const DECLARED: &str = "[[provider]]\nname = \"acme\"\nurl = \"https://acme.example/run\"\n";

#[test]
fn a_declared_provider_is_told_what_it_lacks() {
    expect_after(
        GOOD,
        "[[provider]]\nname = \"Acme\"\nkind = \"compute\"\nurl = \"acme.example\"\nmethod = \"GET\"\ntimout = \"5s\"\n",
        &[
            (1, 1, "provider[0]", "`body` is missing", "add `body"),
            (2, 8, "provider[0].name", "not a provider's name", "lower-case"),
            (3, 8, "provider[0].kind", "not something a provider can do", "store-json"),
            (4, 7, "provider[0].url", "http:// or https://", "scheme"),
            (5, 10, "provider[0].method", "carries no content", "POST"),
            (6, 1, "provider[0].timout", "not a setting", "`timeout`"),
        ],
    );
    expect_after(
        GOOD,
        &format!(
            "{DECLARED}kind = \"run\"\nbody = \"raw\"\nresume = \"by_id\"\nmax_ttl = \"1h\"\nsuccess = {{ equals = 1.5 }}\nresult = {{ out = \"/o\", stdout = \"o\", cid = \"/c\", text = \"/~2\" }}\n"
        ),
        &[
            (1, 1, "provider[0].languages", "nothing says what it runs", "languages ="),
            (6, 10, "provider[0].resume", "not a way to go on", "idempotent"),
            (7, 1, "provider[0].max_ttl", "means nothing for what is run", "remove"),
            (8, 11, "provider[0].success", "`at` is missing", "add `at"),
            (8, 22, "provider[0].success.equals", "found a float", "good answer"),
            (9, 12, "provider[0].result.out", "not a setting", "stdout"),
            (9, 33, "provider[0].result.stdout", "does not start with a slash", "/result/stdout"),
            (9, 57, "provider[0].result.text", "~ is written ~0", "/result/stdout"),
        ],
    );
}

#[test]
fn a_declared_provider_is_asked_in_a_way_that_can_work() {
    let run = |languages: &str, body: &str| {
        format!(
            "{DECLARED}kind = \"run\"\nlanguages = {languages}\nresult = {{ stdout = \"/o\" }}\nbody = {body}\n"
        )
    };
    let store = |kind: &str, more: &str, body: &str| {
        format!("{DECLARED}kind = \"{kind}\"\n{more}\nresult = {{ cid = \"/c\" }}\nbody = {body}\n")
    };
    let body = |text: &str, reason: &'static str, fix: &'static str| {
        expect_after(GOOD, text, &[(7, 1, "provider[0].body", reason, fix)]);
    };
    body(&run("[\"python\"]", "'{\"a\": 1}'"), "no place in it", "{text}");
    body(&run("[\"python\"]", "'{\"a\": \"{json}\"}'"), "no JSON document", "{text}");
    body(&run("[\"python\"]", "'{\"a\": \"{text}\", \"t\": \"{ttl}\"}'"), "not kept", "remove");
    body(&run("[\"a\", \"b\"]", "'{\"a\": \"{text}\"}'"), "which of the languages", "{language}");
    body(&run("[\"a\", \"b\"]", "\"raw\""), "which of the languages", "{language}");
    body(&store("store-file", "", "'{\"a\": \"{text}\"}'"), "any bytes", "{base64}");
    body(
        &store("store-file", "", "'{\"a\": \"{base64}\", \"t\": \"{ttl}\"}'"),
        "without `max_ttl`",
        "remove",
    );
    body(&store("store-file", "", "'{\"a\": \"{base64}\", \"l\": \"{language}\"}'"), "no language", "remove");
    body(&store("store-json", "max_ttl = \"1h\"", "'{\"a\": \"{json}\"}'"), "how long", "{ttl}");
    body(&store("store-json", "max_ttl = \"1h\"", "\"raw\""), "how long", "{ttl}");
    // The template's own mistakes are at its value.
    let text = run("[\"python\"]", "'{\"a\": \"{txt}\"}'");
    expect_after(
        GOOD,
        &text,
        &[(7, 8, "provider[0].body", "{txt} at \"/a\" is not a placeholder", "{text}")],
    );

    let one = |line: &str, expected: Expected| {
        expect_after(GOOD, &store("store-json", line, "'{\"a\": \"{json}\"}'"), &[expected]);
    };
    one("permanent = true\nmax_ttl = \"1h\"", (6, 1, "provider[0].max_ttl", "for good", "not both"));
    one(
        "languages = [\"python\"]",
        (5, 1, "provider[0].languages", "means nothing for what is stored", "remove"),
    );
    one("sample = \"{\"", (5, 1, "provider[0].sample", "not a JSON document", "{}"));
    one(
        "headers = { host = \"x\" }",
        (5, 11, "provider[0].headers", "sent by the gateway itself", "remove host"),
    );
    one("headers = { X-Payment = \"x\" }", (5, 11, "provider[0].headers", "sent by the gateway", "remove"));
    one("headers = { Authorization = \"x\" }", (5, 11, "provider[0].headers", "is a secret", "remove"));
    one("headers = { a = \"x\\ny\" }", (5, 11, "provider[0].headers", "cannot be sent", "x-version"));
    one("headers = \"x\"", (5, 11, "provider[0].headers", "expected a table", "headers = {"));
    let short = store("store-json", "max_ttl = \"30m\"", "'{\"a\": \"{json}\", \"t\": \"{ttl}\"}'");
    expect_after(GOOD, &short, &[(5, 1, "provider[0].max_ttl", "asked for one hour", "1h")]);
}

#[test]
fn an_answer_that_is_the_result_itself_is_not_looked_into() {
    let run = format!("{DECLARED}kind = \"run\"\nlanguages = [\"python\"]\nbody = \"raw\"\n");
    let loaded = load(&format!("{GOOD}{run}answer = \"raw\"\nmax_result = \"1MiB\"\n")).unwrap();
    let result = crate::config::resolved::ResultMapping::Raw { max: 1 << 20 };
    assert_eq!(loaded.config.providers.declared[0].result, result);
    expect_after(
        GOOD,
        &format!("{run}answer = \"raw\"\nresult = {{ stdout = \"/o\" }}\nsuccess = {{ at = \"/ok\" }}\n"),
        &[
            (8, 1, "provider[0].result", "the result itself", "remove"),
            (9, 1, "provider[0].success", "the result itself", "remove"),
        ],
    );
    expect_after(
        GOOD,
        &format!("{run}result = {{ stdout = \"/o\" }}\nanswer = \"text\"\nmax_result = \"1MiB\"\n"),
        &[
            (8, 10, "provider[0].answer", "no answer that can be read", "raw"),
            (9, 1, "provider[0].max_result", "an answer that is JSON", "remove"),
        ],
    );
    let store = format!("{DECLARED}kind = \"store-file\"\nbody = \"raw\"\nanswer = \"raw\"\n");
    expect_after(GOOD, &store, &[(6, 1, "provider[0].answer", "must be named", "json")]);
}

#[test]
fn declared_providers_have_names_of_their_own_and_encrypted_lines() {
    let one = "kind = \"run\"\nlanguages = [\"python\"]\nbody = \"raw\"\nresult = { stdout = \"/o\" }\n";
    let named = |name: &str, url: &str| format!("[[provider]]\nname = \"{name}\"\nurl = \"{url}\"\n{one}");
    let text = named("a", "https://a.example")
        + &named("a", "http://a.example")
        + &named("xcache", "https://x.example");
    expect_after(
        GOOD,
        &text,
        &[
            (9, 1, "provider[1].name", "declared above", "another name"),
            (10, 1, "provider[1].url", "not encrypted", "providers.allow_plain_http"),
            (16, 8, "provider[2].name", "a built-in one", "another name"),
        ],
    );
    // One of them is enough to sell a route.
    let sold = PAYABLE.replace("[providers.merit]\n", "") + "[[routes]]\npath = \"/run\"\nwork = \"run\"\n";
    assert!(load(&sold).is_err());
    let loaded = load(&format!("{sold}{}", named("a", "https://a.example"))).unwrap();
    assert_eq!(loaded.config.providers.declared[0].name, "a");
}
