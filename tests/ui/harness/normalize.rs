//! Taking out of the compiler's words what changes without meaning: folders, places in Mobilis
//! and in the standard library, and lists of whatever else implements a trait.

use std::path::Path;

/// The words as they are pinned.
pub fn normalize(stderr: &str, root: &Path) -> String {
    let root = format!("{}/", root.display());
    let text = without_modules_of_impls(&stderr.replace(&root, ""));
    let mut out: Vec<String> = Vec::new();
    // Whether the snippet being shown is of a file that the user did not write.
    let mut foreign = false;
    // Whether the lines being read belong to a list that is left out.
    let mut list = false;
    // Whether the help being read tells of other implementations, which come and go.
    let mut others = false;
    for line in text.lines() {
        if line.starts_with("error: aborting due to") || line.contains(" try `rustc --explain ") {
            continue;
        }
        let (gutter, rest) = split_gutter(line);
        if others
            && (line.starts_with([' ', '.']) || line.starts_with(|c: char| c.is_ascii_digit()))
            && !rest.starts_with('=')
        {
            continue;
        }
        others = line.starts_with("help: the following ") && line.contains(" implement");
        if others {
            continue;
        }
        if line.starts_with("...") && foreign {
            continue;
        }
        if list {
            let continues = gutter.trim().is_empty() && !rest.starts_with(['=', '|']) && !rest.is_empty();
            if continues && !rest.starts_with("and ") {
                continue;
            }
            list = false;
            if continues {
                continue;
            }
        }
        if rest.starts_with("-->") || rest.starts_with(":::") {
            foreign = !rest.contains("tests/ui/");
            let implemented = |l: &String| l.starts_with("help: the trait ") && l.contains("is implemented for");
            if foreign && out.last().is_some_and(implemented) {
                out.pop();
                continue;
            }
            // A second foreign place; how it is shown depends on whether the sources of the
            // standard library are installed.
            if foreign && rest.starts_with(":::") {
                continue;
            }
            out.push(format!("  {}", if foreign { place(rest) } else { rest.to_string() }));
            continue;
        }
        if rest.starts_with("= note: the failure occurred here") {
            continue;
        }
        if rest.starts_with('=') {
            foreign = false;
            if rest.contains("the full name for the type has been written to")
                || rest.contains("consider using `--verbose`")
            {
                continue;
            }
            if rest.contains("the following other types implement trait")
                || rest.contains("the following types implement trait")
            {
                list = true;
                continue;
            }
            out.push(format!("   {}", rest.trim_end()));
            continue;
        }
        if rest.starts_with('|') || rest == "..." {
            if !foreign {
                out.push(format!("{:>2} {}", gutter.trim(), rest).trim_end().to_string());
            }
            continue;
        }
        if !line.starts_with(' ') {
            foreign = false;
        }
        out.push(line.trim_end().to_string());
    }
    format!("{}\n", out.join("\n").trim_end())
}

/// `ops::slice::<impl Tensor<S, E>>::concat` as `<impl Tensor<S, E>>::concat`: how much of the
/// path the compiler shows depends on what else bears the name.
fn without_modules_of_impls(text: &str) -> String {
    let mut parts = text.split("<impl ");
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        let path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
        let kept = out.trim_end_matches(path).len();
        out.truncate(kept);
        out.push_str("<impl ");
        out.push_str(part);
    }
    out
}

/// A line number, or the space that stands for it, and what follows it.
fn split_gutter(line: &str) -> (&str, &str) {
    let end = line.find(|c: char| !c.is_ascii_digit() && c != ' ').unwrap_or(line.len());
    line.split_at(end)
}

/// `--> /rustc/../num.rs:12:5` as `--> num.rs`.
fn place(rest: &str) -> String {
    let (arrow, path) = rest.split_at(4.min(rest.len()));
    let path = path.split(':').next().unwrap_or("");
    let short = match path.find("/library/") {
        Some(at) => &path[at + 1..],
        None => path,
    };
    format!("{arrow}{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_without_meaning_is_taken_out() {
        let text = "\
error[E0277]: words
    --> /home/me/mobilis/tests/ui/fail/a.rs:7:5
     |
   7 |     f(x);
     |     ^ label
     |
     = help: the following other types implement trait `T`:
               A
               B
             and 7 others
help: the following other types implement trait `T`
    --> /home/me/mobilis/runtime/src/y.rs:3:5
     |
   3 | impl T for A {}
     | ^^^^^^^^^^^^ `A`
...  |
   9 | impl T for B {}
     | ------------ `B`
help: the trait `T` is implemented for `C`
    --> /home/me/mobilis/runtime/src/y.rs:3:5
     |
   3 | impl T for C {}
     | ^^^^^^^^^^^^
note: inside `f`
    --> /rustc/59807616e/library/core/src/panic.rs:17:5
     |
     = note: the failure occurred here
     |
    ::: /home/me/mobilis/runtime/src/y.rs:3:5
note: required by a bound in `ops::f::<impl T<S>>::f`
    --> /home/me/mobilis/runtime/src/x.rs:1234:5
     |
1234 | fn f() {}
     |    ^
...  |
1236 | }
     = note: the full name for the type has been written to '/tmp/x.long-type-1.txt'

error: aborting due to 1 previous error
";
        let expected = "\
error[E0277]: words
  --> tests/ui/fail/a.rs:7:5
   |
 7 |     f(x);
   |     ^ label
   |
note: inside `f`
  --> library/core/src/panic.rs
note: required by a bound in `<impl T<S>>::f`
  --> runtime/src/x.rs
";
        assert_eq!(normalize(text, Path::new("/home/me/mobilis")), expected);
    }
}
