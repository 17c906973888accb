//! Chat templates: from messages to the text that a model was trained on.
//!
//! A template is written in Jinja, the language of `transformers`' `apply_chat_template`
//! (`utils/chat_template_utils.py`), and runs here on `minijinja` with what that function gives it:
//! blocks trimmed as there, methods of Python's strings and dictionaries, `break` and `continue`,
//! `raise_exception`, `strftime_now`, `tojson` in Python's spelling, `{% generation %}` (which marks the
//! assistant's words for training and changes no text).
//!
//! A template comes with a model, so it may be hostile: its instructions, its depth and the length of its
//! result are limited, so that loops end in errors, and it can reach nothing but the messages. What is not
//! limited is the memory for texts that it puts together on the way (`minijinja` has no means for that): a
//! template written to double a text over and over can use up the machine's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind, merge_maps};
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use serde::Serialize;
use serde_json::Value as Json;

use super::config::TokenizerConfig;
use super::error::TextError;

/// The most instructions for a rendering, and for each kilobyte of messages.
const FUEL: u64 = 5_000_000;
const FUEL_PER_KILOBYTE: u64 = 200_000;
/// The most bytes of a rendering beside those of the messages themselves.
const MAX_OUTPUT: usize = 16 << 20;
/// The longest template.
const MAX_TEMPLATE: usize = 4 << 20;

/// One message of a conversation: an object with at least a `role`, in the form of `transformers` and of
/// the chat completion interfaces (`content`, `tool_calls`, `name`, …).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message(Json);

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message(serde_json::json!({"role": role, "content": content.into()}))
    }

    /// What the conversation is about, how to answer.
    pub fn system(content: impl Into<String>) -> Message {
        Message::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Message {
        Message::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message::new("assistant", content)
    }

    /// What a tool returned.
    pub fn tool(name: &str, content: impl Into<String>) -> Message {
        Message(serde_json::json!({"role": "tool", "name": name, "content": content.into()}))
    }

    /// Adds a key: `tool_calls`, `reasoning_content`, ….
    pub fn with(mut self, key: &str, value: impl Into<Json>) -> Message {
        if let Json::Object(map) = &mut self.0 {
            map.insert(key.to_owned(), value.into());
        }
        self
    }

    /// A message in the JSON form.
    ///
    /// # Errors
    /// Anything but an object with a `role` that is a text.
    pub fn from_json(value: Json) -> Result<Message, TextError> {
        match value.get("role") {
            Some(Json::String(_)) => Ok(Message(value)),
            _ => Err(TextError::invalid(
                "message",
                format!("expected an object with `role` and `content`, found {}", shorten(&value.to_string())),
            )),
        }
    }

    /// The role.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Json::as_str).unwrap_or("")
    }

    /// The content, where it is a text.
    pub fn content(&self) -> Option<&str> {
        self.0.get("content").and_then(Json::as_str)
    }

    /// The message in the JSON form.
    pub fn json(&self) -> &Json {
        &self.0
    }
}

/// What a rendering is given beside the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// Ends with what makes the model answer.
    pub add_generation_prompt: bool,
    /// Tools that the model may call, as JSON schemas.
    pub tools: Option<Json>,
    /// Documents to answer from.
    pub documents: Option<Json>,
    /// More names for the template: `enable_thinking`, ….
    pub extra: serde_json::Map<String, Json>,
    /// The time that `strftime_now` tells, in UTC; now where it is not given.
    pub now: Option<SystemTime>,
}

impl ChatOptions {
    /// For an answer: with what makes the model speak.
    pub fn to_answer() -> ChatOptions {
        ChatOptions { add_generation_prompt: true, ..ChatOptions::default() }
    }
}

/// A template, ready to render.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    name: String,
    special: Value,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatTemplate({})", self.name)
    }
}

impl ChatTemplate {
    /// Reads a template; `name` is for errors, `config` has the special tokens that templates may name
    /// (`bos_token`, …).
    ///
    /// # Errors
    /// What is not Jinja, with the line.
    pub fn new(source: &str, name: &str, config: &TokenizerConfig) -> Result<ChatTemplate, TextError> {
        if source.len() > MAX_TEMPLATE {
            let why = format!("expected at most {MAX_TEMPLATE} bytes, found {}", source.len());
            return Err(TextError::Template { template: name.to_owned(), why });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("only blanks are set"));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_recursion_limit(200);
        environment.add_function("raise_exception", |why: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{why}")))
        });
        environment.add_filter("tojson", tojson);
        let source = without_generation(source);
        environment
            .add_template_owned("chat", source)
            .map_err(|e| TextError::Template { template: name.to_owned(), why: explain(&e) })?;
        let special = Value::from(Serde(&config.special));
        Ok(ChatTemplate { environment: Arc::new(environment), name: name.to_owned(), special })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`TextError::Refused`] where the template itself raises (roles in a wrong order, …), and
    /// [`TextError::Template`] where it fails or does not end.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, TextError> {
        let failed = |e: &minijinja::Error| self.failed(e);
        let size: usize = messages.iter().map(|m| m.0.to_string().len()).sum();
        let mut environment = (*self.environment).clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_KILOBYTE * (size as u64 / 1024)));
        let now = options.now.unwrap_or_else(SystemTime::now);
        environment.add_function("strftime_now", move |format: String| strftime(now, &format));
        let template = environment.get_template("chat").map_err(|e| failed(&e))?;
        let own = context! {
            messages => Value::from(Serde(messages)),
            tools => Value::from(Serde(&options.tools)),
            documents => Value::from(Serde(&options.documents)),
            add_generation_prompt => options.add_generation_prompt,
        };
        let context = merge_maps([own, Value::from(Serde(&options.extra)), self.special.clone()]);
        let mut out = Bounded { text: Vec::new(), limit: MAX_OUTPUT + 4 * size };
        match template.render_captured_to(context, &mut out) {
            Ok(_) => String::from_utf8(out.text).map_err(|e| TextError::Template {
                template: self.name.clone(),
                why: format!("its result is not UTF-8: {e}"),
            }),
            Err(_) if out.text.len() >= out.limit => Err(TextError::Template {
                template: self.name.clone(),
                why: format!("its result is longer than {} bytes", out.limit),
            }),
            Err(e) => Err(failed(&e)),
        }
    }

    fn failed(&self, error: &minijinja::Error) -> TextError {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(e) = cause {
            if let Some(e) = e.downcast_ref::<minijinja::Error>()
                && let Some(why) = e.detail().and_then(|d| d.strip_prefix(REFUSED))
            {
                return TextError::Refused { template: self.name.clone(), why: why.to_owned() };
            }
            cause = e.source();
        }
        let why = match error.kind() {
            ErrorKind::OutOfFuel => "it does not end: more steps than any template needs".into(),
            _ => explain(error),
        };
        TextError::Template { template: self.name.clone(), why }
    }
}

/// What `raise_exception` puts before its words, to be known again.
const REFUSED: &str = "\u{1}refused: ";

fn explain(error: &minijinja::Error) -> String {
    let mut text = match error.line() {
        Some(line) => format!("line {line}: {}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(detail) = error.detail() {
        let _ = write!(text, ": {detail}");
    }
    text
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text.to_owned(),
    }
}

/// Collects a rendering up to a length.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.text.len() + part.len() > self.limit {
            self.text.resize(self.limit, 0);
            return Err(std::io::Error::other("too long"));
        }
        self.text.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` and its end as a condition that always holds: `minijinja` takes no new tags.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let open = 2 + tag[2..].find(|c| c != '-' && c != '+').unwrap_or(0).min(1);
        let inner = &tag[open..];
        let name = inner.trim_start();
        let gap = inner.len() - name.len();
        let word = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len())];
        let end = name[word.len()..].trim_start();
        let instead = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        let taken = open + gap + word.len();
        match instead.filter(|_| end.starts_with("%}") || end.starts_with("-%}") || end.starts_with("+%}")) {
            Some(instead) => {
                out.push_str(&tag[..open]);
                out.push(' ');
                out.push_str(instead);
            }
            None => out.push_str(&tag[..taken]),
        }
        rest = &tag[taken..];
    }
    out.push_str(rest);
    out
}

/// `json.dumps(value, ensure_ascii=False, indent=…, separators=…, sort_keys=…)`.
fn tojson(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = match options.get::<Option<Value>>("indent")? {
        Some(v) if v.kind() == ValueKind::Number => v.as_usize(),
        _ => None,
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let wrong = |e: &dyn std::fmt::Display| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    if indent.is_some_and(|n| n > 64) {
        return Err(wrong(&"an indent of more than 64"));
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(wrong(&"`separators` has to be two texts")),
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let json = serde_json::to_value(&value).map_err(|e| wrong(&e))?;
    let mut out = String::new();
    let style = Style { indent, item, key, sort: sort.unwrap_or(false) };
    style.write(&json, 0, &mut out);
    Ok(Value::from_safe_string(out))
}

struct Style {
    indent: Option<usize>,
    item: String,
    key: String,
    sort: bool,
}

impl Style {
    fn write(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Array(list) => self.list(b"[]", list.iter(), depth, out, |s, v, d, o| s.write(v, d, o)),
            Json::Object(map) => {
                let mut entries: Vec<(&String, &Json)> = map.iter().collect();
                if self.sort {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.list(b"{}", entries.into_iter(), depth, out, |s, (key, v), d, o| {
                    let _ = write!(o, "{}{}", Json::from(key.as_str()), s.key);
                    s.write(v, d, o);
                });
            }
            other => {
                let _ = write!(out, "{other}");
            }
        }
    }

    fn list<T>(
        &self,
        ends: &[u8; 2],
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        out: &mut String,
        mut each: impl FnMut(&Style, T, usize, &mut String),
    ) {
        let empty = items.len() == 0;
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(char::from(ends[0]));
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(&self.item);
            }
            line(out, depth + 1);
            each(self, item, depth + 1, out);
        }
        if !empty {
            line(out, depth);
        }
        out.push(char::from(ends[1]));
    }
}

/// Python's `strftime` for the parts that templates use, in UTC.
fn strftime(now: SystemTime, format: &str) -> Result<String, minijinja::Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    // Days to the calendar, in years that begin in March (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let january = (day_of_year + if leap { 60 } else { 59 }) % if leap { 366 } else { 365 } + 1;
    let (month_name, day_name) = (MONTHS[(month - 1) as usize], DAYS[((days + 4) % 7) as usize]);
    let half = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        // `%-d`: without the zero in front.
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        let number = |value: u64, width: usize| {
            if bare { value.to_string() } else { format!("{value:0width$}") }
        };
        out.push_str(&match code {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:2}"),
            Some('j') => number(january, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(half, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second % 60, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let code = other.map_or_else(|| "%".to_owned(), |c| format!("%{c}"));
                let why = format!("strftime_now: `{code}` in `{format}` is not built");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, why));
            }
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, format: &str) -> String {
        strftime(UNIX_EPOCH + Duration::from_secs(seconds), format).unwrap()
    }

    #[test]
    fn dates_are_pythons() {
        // datetime.fromtimestamp(1709210096, timezone.utc): a 29th of February.
        assert_eq!(at(1_709_210_096, "%d %b %Y, %A %H:%M:%S %j %I %p"), "29 Feb 2024, Thursday 12:34:56 060 12 PM");
        assert_eq!(at(0, "%Y-%m-%d %a %j %-d"), "1970-01-01 Thu 001 1");
        assert_eq!(at(1_735_603_200, "%F %j"), "2024-12-31 366");
        assert_eq!(at(1_740_787_200, "%F %j"), "2025-03-01 060");
        assert!(strftime(UNIX_EPOCH, "%Q").is_err());
    }

    #[test]
    fn generation_blocks_become_conditions() {
        let source = "{%- generation -%}a{% endgeneration %}{% generation_x %}{{ '{% generation' }}";
        assert_eq!(without_generation(source), "{%- if true -%}a{% endif %}{% generation_x %}{{ '{% generation' }}");
    }
}
