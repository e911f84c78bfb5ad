//! The router against a table, and against everything an app may make of a path.

use super::*;
use crate::config::resolved::{BrokeredWork, Settle};
use crate::x402::PaymentFlow;
use proptest::prelude::*;

fn route(path: &str, methods: &[Method], action: Action) -> Route {
    Route { path: path.to_owned(), methods: methods.to_vec(), action }
}

fn brokered() -> Action {
    Action::Brokered { work: BrokeredWork::Store, settle: PaymentFlow::Authorization }
}

fn priced() -> Action {
    Action::Priced {
        price: "0.01".into(),
        settle: Settle::Success,
        description: String::new(),
        mime_type: String::new(),
    }
}

fn router() -> Router {
    let routes = [
        route("/store", &[Method::POST], brokered()),
        route("/report", &[Method::GET], priced()),
        route("/api/open/*", &[], Action::Free),
        route("/api/*", &[], priced()),
    ];
    let own = OwnPaths {
        status: Some("/status".into()),
        job: Some("job".into()),
        files: None,
        jobs: Some("jobs".into()),
    };
    Router::new(&routes, own)
}

fn target(method: Method, path: &str) -> Target {
    router().target(&method, path, &HeaderMap::new())
}

#[test]
fn the_first_rule_that_matches_wins() {
    assert_eq!(target(Method::POST, "/store"), Target::Sold(0));
    assert_eq!(target(Method::GET, "/store"), Target::Free(None));
    assert_eq!(target(Method::GET, "/report"), Target::Sold(1));
    assert_eq!(target(Method::HEAD, "/report"), Target::Sold(1));
    assert_eq!(target(Method::POST, "/report"), Target::Free(None));
    assert_eq!(target(Method::GET, "/api/open/x"), Target::Free(Some(2)));
    assert_eq!(target(Method::PUT, "/api/x/y"), Target::Sold(3));
    assert_eq!(target(Method::GET, "/api"), Target::Sold(3));
    assert_eq!(target(Method::GET, "/apiary"), Target::Free(None));
    assert_eq!(target(Method::POST, "/store/x"), Target::Free(None));
}

#[test]
fn free_paths_keep_their_spelling() {
    for path in [
        "/",
        "//cdn//x",
        "/a%2Fb",
        "/wiki/Caf%C3%A9",
        "/a;v=1/b",
        "/a/./b",
        "/x%20y",
        "/100%25",
        "/.well-known/x",
        "/a.",
    ] {
        assert_eq!(target(Method::GET, path), Target::Free(None), "{path}");
    }
}

#[test]
fn spellings_of_a_sold_path_are_refused() {
    for path in [
        "/store/",
        "//store",
        "/./store",
        "/Store",
        "/STORE",
        "/%73tore",
        "/%2573tore",
        "/store;x",
        "/store;x=%2Fy",
        "/store%3Bx",
        "/;a/store",
        "/store%3Fa",
        "/store%23",
        "/store%2f",
        "/%2fstore",
        "/\\store",
        "/%5cstore",
        "/store.",
        "/store%20",
        "/store/.",
        "/x/../store",
        "/x/%2e%2e/store",
        "/x/..;/store",
        "/x%2f..%2fstore",
        "/%c0%afstore",
        "/%c1%b3tore",
        "/%ef%bd%93tore",
        "/ｓtore",
        "/ſtore",
    ] {
        assert_eq!(target(Method::POST, path), Target::Ambiguous, "{path}");
    }
}

#[test]
fn nonsense_is_refused_only_where_something_is_sold() {
    let free = Router::new(&[route("/api/*", &[], Action::Free)], OwnPaths::default());
    for path in ["/a/../b", "/a%00", "/a%0d%0a", "/%zz", "/%", "/%2e%2e/x", "/%25252525"] {
        assert_eq!(target(Method::GET, path), Target::Ambiguous, "{path}");
        assert_eq!(free.target(&Method::GET, path, &HeaderMap::new()), Target::Free(None), "{path}");
    }
}

#[test]
fn below_a_prefix_any_spelling_is_sold_if_all_readings_are() {
    for path in ["/api/a//b", "/api/a%2Fb", "/api/Caf%C3%A9", "/api/", "/api/x;y"] {
        assert_eq!(target(Method::GET, path), Target::Sold(3), "{path}");
    }
    assert_eq!(target(Method::GET, "/api/open/a//b"), Target::Free(Some(2)));
    for path in [
        "/api//open/x",
        "/API/x",
        "/api/Open/x",
        "/api/%6fpen/x",
        "/api;/open/x",
        "//api/x",
        "/api%2fx",
        "//api//open/x",
        "/api;/open/x",
    ] {
        assert_eq!(target(Method::GET, path), Target::Ambiguous, "{path}");
    }
}

#[test]
fn the_operators_word_on_a_spelling_stands() {
    let routes = [route("/report", &[], priced()), route("/Report", &[], Action::Free)];
    let router = Router::new(&routes, OwnPaths::default());
    assert_eq!(router.target(&Method::GET, "/Report", &HeaderMap::new()), Target::Free(Some(1)));
    assert_eq!(router.target(&Method::GET, "/REPORT", &HeaderMap::new()), Target::Ambiguous);
}

#[test]
fn header_fields_lead_no_app_around_the_price() {
    let with = |name: &'static str, value: &'static str, method: Method, path: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        router().target(&method, path, &headers)
    };
    assert_eq!(with("x-http-method-override", "GET", Method::POST, "/report"), Target::Ambiguous);
    assert_eq!(with("x-http-method-override", "PUT", Method::POST, "/other"), Target::Free(None));
    assert_eq!(with("x-original-url", "/report?x", Method::GET, "/"), Target::Ambiguous);
    assert_eq!(with("x-rewrite-url", "/%72eport", Method::GET, "/"), Target::Ambiguous);
    assert_eq!(with("x-original-url", "/free", Method::GET, "/"), Target::Free(None));
}

#[test]
fn options_is_never_sold() {
    assert_eq!(target(Method::OPTIONS, "/store"), Target::Options(0));
    assert_eq!(target(Method::OPTIONS, "/report"), Target::Free(Some(1)));
    assert_eq!(target(Method::OPTIONS, "/other"), Target::Free(None));
    let mut headers = HeaderMap::new();
    headers.insert(REQUEST_METHOD, "GET".parse().unwrap());
    assert_eq!(router().target(&Method::OPTIONS, "/report", &headers), Target::Preflight(1));
    assert_eq!(router().target(&Method::OPTIONS, "/other", &headers), Target::Free(None));
}

#[test]
fn only_well_formed_ids_are_ours() {
    let id = JobId::new();
    assert_eq!(target(Method::GET, &format!("/status/{id}")), Target::Own(Own::Status(id)));
    assert_eq!(target(Method::HEAD, &format!("/job/{id}")), Target::Own(Own::Job(id)));
    assert_eq!(target(Method::POST, &format!("/status/{id}")), Target::Free(None));
    assert_eq!(target(Method::OPTIONS, &format!("/jobs/{id}")), Target::OwnOptions(Own::Watch(id)));
    assert_eq!(target(Method::OPTIONS, "/jobs/mine"), Target::Free(None));
    assert_eq!(target(Method::GET, &format!("/status/{id}/x")), Target::Free(None));
    assert_eq!(target(Method::GET, &format!("/jobs/{id}")), Target::Own(Own::Watch(id)));
    assert_eq!(target(Method::GET, &format!("/jobs/{id}/events")), Target::Own(Own::Events(id)));
    for path in
        ["/jobs/events", "/jobs//events", &format!("/jobs/{id}/event"), &format!("/jobs/{id}/events/x")]
    {
        assert_eq!(target(Method::GET, path), Target::Free(None), "{path}");
    }
    assert_eq!(target(Method::GET, "/status/now"), Target::Free(None));
    assert_eq!(target(Method::GET, &format!("/files/{}", FileId::random())), Target::Free(None));
}

/// One character as some clients and attackers write it.
fn spelling(c: char) -> impl Strategy<Value = String> {
    let byte = u8::try_from(c).unwrap();
    prop_oneof![
        4 => Just(c.to_string()),
        1 => Just(c.to_ascii_uppercase().to_string()),
        1 => Just(format!("%{byte:02x}")),
        1 => Just(format!("%{byte:02X}")),
        1 => Just(format!("%25{byte:02x}")),
        1 => Just(format!("%2525{byte:02x}")),
    ]
}

/// What may stand for a `/` between segments, as far as some app is concerned.
fn separator() -> impl Strategy<Value = String> {
    const FORMS: &[&str] = &[
        "/",
        "//",
        "/./",
        "///",
        "\\",
        "%2f",
        "%5C",
        "/%2e/",
        "%252f",
        ";a=b/",
        "/;/",
        "/a/../",
        "/a/%2e%2E/",
        "%c0%af",
    ];
    proptest::sample::select(FORMS).prop_map(str::to_owned)
}

fn ending() -> impl Strategy<Value = String> {
    const FORMS: &[&str] =
        &["", "", "/", "//", "/.", ".", "%20", ";x", ";x=/..", "%3bx", "?", "%3f", "%23y", "%2F", "\\"];
    proptest::sample::select(FORMS).prop_map(|form| form.trim_end_matches('?').to_owned())
}

/// Spellings of a path made of these segments.
fn spellings(segments: &'static [&'static str]) -> impl Strategy<Value = String> {
    let segment =
        |text: &'static str| text.chars().map(spelling).collect::<Vec<_>>().prop_map(|parts| parts.concat());
    let parts: Vec<_> = segments.iter().map(|text| (separator(), segment(text))).collect();
    (parts, ending()).prop_map(|(parts, end)| {
        // A request target begins with a slash whatever else it is.
        let path: String = parts.into_iter().map(|(separator, segment)| separator + &segment).collect();
        if path.starts_with('/') { path + &end } else { format!("/{path}{end}") }
    })
}

/// What an app may do to a path before it compares it, in any order and number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Decode,
    Front,
    Merge,
    Dots,
    Parameters,
    Lower,
    Trim,
    Backslash,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::{Backslash, Decode, Dots, Front, Lower, Merge, Parameters, Trim};
    proptest::sample::select(vec![Decode, Decode, Front, Merge, Dots, Parameters, Lower, Trim, Backslash])
}

fn normalise(path: &str, steps: &[Step]) -> String {
    let mut path = path.to_owned();
    for step in steps {
        path = match step {
            Step::Decode => percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned(),
            // Some look only at the start.
            Step::Front => format!("/{}", path.trim_start_matches('/')),
            Step::Merge => {
                let mut merged = String::new();
                for c in path.chars() {
                    if c != '/' || !merged.ends_with('/') {
                        merged.push(c);
                    }
                }
                merged
            }
            Step::Dots => {
                let mut stack: Vec<&str> = Vec::new();
                for segment in path.split('/').skip(1) {
                    match segment {
                        "." => {}
                        ".." => drop(stack.pop()),
                        segment => stack.push(segment),
                    }
                }
                format!("/{}", stack.join("/"))
            }
            Step::Parameters => {
                let cut: Vec<&str> =
                    path.split('/').map(|part| part.split(';').next().unwrap_or("")).collect();
                cut.join("/")
            }
            Step::Lower => path.to_lowercase(),
            Step::Trim => format!("/{}", path.trim_matches('/')),
            Step::Backslash => path.replace('\\', "/"),
        };
    }
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However a sold path is spelled, it is sold or refused.
    #[test]
    fn no_spelling_of_a_sold_path_is_free(path in spellings(&["store"])) {
        let target = target(Method::POST, &path);
        prop_assert!(matches!(target, Target::Sold(0) | Target::Ambiguous), "{path}: {target:?}");
    }

    /// The same below a prefix, where part of the prefix is free.
    #[test]
    fn no_spelling_below_a_sold_prefix_is_free(path in spellings(&["api", "vault", "x"])) {
        let target = target(Method::GET, &path);
        prop_assert!(matches!(target, Target::Sold(3) | Target::Ambiguous), "{path}: {target:?}");
    }

    /// From the other side: what passes free is, to an app with any of these habits, not a sold path.
    #[test]
    fn whatever_the_app_makes_of_a_free_path_is_free(
        path in "(/|//|\\\\|%2f|%5c|;|;x|%3b|\\.|\\.\\.|%2e|%25|s|S|%73|store|api|open|vault|%61pi){1,8}",
        steps in proptest::collection::vec(step(), 0..6),
    ) {
        let path = format!("/{path}");
        let sold = |target: Target| matches!(target, Target::Sold(_));
        let router = router();
        let by = |path: &str, method: &Method| {
            router.rules.iter().position(|rule| rule.takes(method) && rule.is(path))
                .is_some_and(|index| router.sold(index))
        };
        for method in [Method::POST, Method::GET] {
            let target = target(method.clone(), &path);
            if matches!(target, Target::Free(_)) {
                let read = normalise(&path, &steps);
                prop_assert!(!by(&read, &method), "{path} passes, and reads as {read} after {steps:?}");
            }
            prop_assert!(!sold(target) || by(&path, &method));
        }
    }
}
