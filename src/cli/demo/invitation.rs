//! What to try while the demo keeps serving: lines that work as they are printed.

use std::path::{Path, PathBuf};

use super::screen::Screen;
use super::stage::Stage;

/// Prints them. The key file they name is made here.
pub(super) fn print(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    let url = stage.url()?;
    let url = url.to_string();
    let url = url.trim_end_matches('/');
    let program = quoted(&program());
    let key = quoted(&stage.write_key("payer.key")?);
    let code = quoted(&stage.write("hello.py", "print('hello from whoever runs this')\n")?);
    let note = quoted(&stage.write("hello.txt", "hello, for an hour\n")?);

    screen.heading(&format!("Serving on {url} until Ctrl-C. In another terminal:"));
    screen.plain("");
    screen.plain(&format!("curl -i {url}/hello"));
    screen.plain(&format!("curl -i {url}/premium/report"));
    for (path, body) in [
        ("/run", r#"{"code":"print(1)","language":"python"}"#),
        ("/store", r#"{"data":{"a":1},"options":{"permanent":true}}"#),
    ] {
        screen.plain(&format!("curl -i {url}{path} -H 'content-type: application/json' \\\n    -d '{body}'"));
    }
    screen.heading("All but the first answer 402. To pay, with a key made for this demo:");
    screen.plain("");
    for (work, file) in [("run", code), ("store", note)] {
        screen.plain(&format!("{program} pay {work} {file} \\\n    --url {url} --key-file {key}"));
    }
    if let Some(admin) = stage.admin {
        screen.heading("For the operator:");
        screen.plain("");
        for page in ["health", "ready", "metrics"] {
            screen.plain(&format!("curl http://{admin}/{page}"));
        }
    }
    Ok(())
}

/// This program, as it can be called from the same folder.
fn program() -> PathBuf {
    let Ok(path) = std::env::current_exe() else { return PathBuf::from("galaksio") };
    match std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned)) {
        // A name without a slash would be looked for elsewhere.
        Some(below) => Path::new(".").join(below),
        None => path,
    }
}

/// The path as a POSIX shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_one_word() {
        assert_eq!(quoted(Path::new("/tmp/a-1/b.py")), "/tmp/a-1/b.py");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
        assert_eq!(quoted(Path::new("a$(b)")), "'a$(b)'");
    }
}
