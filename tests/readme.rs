//! The README claims only what the repository shows. Its listing is a documentation test of the
//! façade; here are the rest.

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_error_is_what_the_compiler_says() {
    let readme = read("README.md");
    let mut rest = readme.as_str();
    let mut count = 0;
    while let Some(start) = rest.find("```text\nerror") {
        rest = &rest[start + "```text\n".len()..];
        let message = &rest[..rest.find("```").expect("its end")];
        let place = message.lines().nth(1).and_then(|l| l.trim().strip_prefix("--> ")).expect("a place");
        let file = place.split(':').next().expect("a file");
        assert!(read(&file.replace(".rs", ".stderr")).starts_with(message.trim_end()), "{file} says otherwise");
        count += 1;
    }
    assert!(count >= 2, "{count} error messages");
}

#[test]
fn files_commands_and_examples_exist() {
    let readme = read("README.md");
    for example in readme.split('`').filter(|w| w.len() > 3 && w.as_bytes()[..2].iter().all(u8::is_ascii_digit)) {
        // Others than programs are named with their ending.
        read(&if example.contains('.') { format!("examples/{example}") } else { format!("examples/{example}.rs") });
    }
    for file in ["CONTRIBUTING.md", "LICENSE", "NOTICE", "tests/budget.sh"] {
        assert!(readme.contains(file));
        read(file);
    }
    #[cfg(feature = "cli")]
    for command in readme.split('`').filter_map(|w| w.strip_prefix("mobilis ")) {
        let name = command.split(' ').next().expect("a word");
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_mobilis")).args([name, "--help"]).output();
        assert!(help.expect("the command starts").status.success(), "there is no `mobilis {name}`");
    }
}

#[test]
fn the_mistakes_are_as_many_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/fail");
    let count = std::fs::read_dir(folder).expect("the folder").count() / 2;
    assert!(read("README.md").contains("more than a hundred others") && count > 101, "{count}");
}
