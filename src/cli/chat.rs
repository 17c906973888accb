//! `mobilis chat MODEL`: a conversation.
//!
//! On a terminal lines can be edited, and Ctrl-C ends a reply; elsewhere each line of standard input
//! is a turn. The session keeps what it has seen: a turn costs its own tokens.

use super::choosing::{ChooseArguments, Choosers};
use super::language::{Language, LoadArguments};
use super::{CliError, Output};
use mobilis_runtime::suggest::did_you_mean;
use mobilis_zoo::generate::{Generator, Lane, Request, Speculation, Statistics, StopReason};
use mobilis_zoo::text::{ChatOptions, ChatTemplate, Message};
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: LoadArguments,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    choose: ChooseArguments,
    /// Guess tokens by what followed the last ones earlier in the conversation.
    #[arg(long, value_name = "TOKENS", num_args = 0..=1, default_missing_value = "7", value_parser = clap::value_parser!(u32).range(1..=512))]
    lookup: Option<u32>,
}

/// What may be typed instead of a turn.
const COMMANDS: [(&str, &str); 8] = [
    ("/help", "list these"),
    ("/reset", "begin anew"),
    ("/system TEXT", "begin anew, the model being told this"),
    ("/undo", "take the last turn back"),
    ("/retry", "let the model answer again, with another seed"),
    ("/save FILE", "write the conversation as JSON"),
    ("/load FILE", "read one that was saved"),
    ("/exit", "leave; Ctrl-D does so, too"),
];

/// Ctrl-C was pressed.
static STOPPED: AtomicBool = AtomicBool::new(false);

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let language = arguments.load.open(output)?;
    let template = language.tokenizer()?.chat_template(None).map_err(CliError::language)?;
    let generator = arguments.load.generator(&language)?;
    let lane = generator.lane(1, generator.positions());
    let choosers = arguments.choose.choosers(&language)?;
    let (messages, turn) = (vec![], 0);
    let mut chat = Chat { arguments, output, language: &language, template, generator, choosers, lane, messages, turn };
    chat.reset(arguments.system.as_deref());
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !output.json {
        // Where there can be no handler, Ctrl-C leaves.
        let _ = ctrlc::set_handler(|| STOPPED.store(true, Ordering::Relaxed));
        output.note("/help lists what can be done; Ctrl-C ends a reply, Ctrl-D the conversation");
        let fault = |e: ReadlineError| CliError::Arguments(format!("the terminal cannot be read: {e}"));
        let mut editor = rustyline::DefaultEditor::new().map_err(fault)?;
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    // A history that cannot be kept is no harm.
                    let _ = editor.add_history_entry(&line);
                    match chat.line(&line) {
                        Ok(true) => {}
                        Ok(false) => return Ok(()),
                        Err(e) => eprintln!("error: {e}"),
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(fault(e)),
            }
        }
    }
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|source| CliError::Read { path: "standard input".into(), source })?;
        if !chat.line(&line)? {
            break;
        }
    }
    Ok(())
}

struct Chat<'a> {
    arguments: &'a Arguments,
    output: &'a Output,
    language: &'a Language,
    template: ChatTemplate,
    generator: Generator<'a>,
    choosers: Choosers,
    lane: Lane,
    messages: Vec<Message>,
    /// Replies so far: each is drawn with a seed of its own.
    turn: u32,
}

impl Chat<'_> {
    fn reset(&mut self, system: Option<&str>) {
        self.messages = system.filter(|s| !s.is_empty()).map(Message::system).into_iter().collect();
    }

    fn is_system(&self, i: usize) -> bool {
        self.messages.get(i).is_some_and(|m| m.role() == "system")
    }

    /// A line that was typed. Whether the conversation goes on.
    fn line(&mut self, line: &str) -> Result<bool, CliError> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(true);
        }
        if !line.starts_with('/') {
            self.messages.push(Message::user(line));
            return self.reply();
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "/exit" | "/quit" | "/bye" => return Ok(false),
            "/help" | "/?" => {
                COMMANDS.iter().for_each(|(command, what)| eprintln!("{command:14} {what}"));
            }
            "/reset" => {
                let system = self.is_system(0).then(|| self.messages[0].clone());
                self.messages = system.into_iter().collect();
            }
            "/system" => self.reset(Some(rest)),
            "/undo" => self.undo(),
            "/retry" => {
                if self.messages.last().is_some_and(|m| m.role() == "assistant") {
                    self.messages.pop();
                }
                match self.messages.last().is_some_and(|m| m.role() == "user") {
                    true => return self.reply(),
                    false => self.output.note("there is nothing to answer yet"),
                }
            }
            "/save" if !rest.is_empty() => self.save(Path::new(rest))?,
            "/load" if !rest.is_empty() => self.load(Path::new(rest))?,
            "/save" | "/load" => {
                return Err(CliError::Arguments(format!("{command} needs a file: {command} chat.json")));
            }
            _ => {
                let names = COMMANDS.iter().map(|(c, _)| c.split(' ').next().unwrap_or(c));
                let hint = did_you_mean(command, names);
                return Err(CliError::Arguments(format!("there is no command {command} (/help lists all){hint}")));
            }
        }
        Ok(true)
    }

    fn undo(&mut self) {
        let last = self.messages.iter().rposition(|m| m.role() == "user");
        match last {
            Some(i) => self.messages.truncate(i),
            None => self.output.note("there is no turn to take back"),
        }
    }

    fn save(&self, path: &Path) -> Result<(), CliError> {
        let messages: Vec<&Value> = self.messages.iter().map(Message::json).collect();
        let text = format!("{:#}\n", json!({ "model": self.arguments.load.model, "messages": messages }));
        std::fs::write(path, text).map_err(|source| CliError::Write { path: path.into(), source })?;
        self.output.note(&format!("wrote {}", path.display()));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> Result<(), CliError> {
        let text = super::language::text_of(path)?;
        let fault = |why: String| CliError::Arguments(format!("{} is no conversation: {why}", path.display()));
        let value: Value = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
        let list = value.get("messages").unwrap_or(&value).as_array();
        let list = list.ok_or_else(|| fault("it has no list of messages".into()))?;
        let messages: Result<Vec<Message>, _> = list.iter().cloned().map(Message::from_json).collect();
        self.messages = messages.map_err(|e| fault(e.to_string()))?;
        self.output.note(&format!("{} messages", self.messages.len()));
        Ok(())
    }

    /// The tokens of the conversation up to the model's turn. Where it is longer than the model's
    /// context, the oldest turns are left out.
    fn prompt(&mut self) -> Result<Vec<u32>, CliError> {
        loop {
            let rendered = self.template.render(&self.messages, &ChatOptions::to_answer());
            let rendered = rendered.map_err(CliError::language)?;
            let ids = self.language.tokenizer()?.encode(&rendered, false).map_err(CliError::language)?;
            let first = self.is_system(0) as usize;
            let second = (first + 1..self.messages.len()).find(|i| self.messages[*i].role() == "user");
            match second {
                Some(second) if ids.len() >= self.lane.positions() => {
                    self.messages.drain(first..second);
                    self.output.note("the conversation has grown too long: its oldest turn is left out");
                }
                _ => return Ok(ids),
            }
        }
    }

    /// Lets the model answer. Whether somebody still reads.
    fn reply(&mut self) -> Result<bool, CliError> {
        match self.answer() {
            Ok(on) => Ok(on),
            Err(e) => {
                // What could not be answered is not part of the conversation.
                self.undo();
                Err(e)
            }
        }
    }

    fn answer(&mut self) -> Result<bool, CliError> {
        let prompt = self.prompt()?;
        let (chooser, most) = (self.choosers.of(self.turn), self.choosers.most());
        self.turn += 1;
        let speculation = self.arguments.lookup.map_or(Speculation::None, |n| Speculation::Lookup(n as usize));
        let request = Request { prompt, most, chooser };
        let mut generation =
            self.generator.generate_in(&mut self.lane, vec![request], speculation).map_err(CliError::language)?;
        STOPPED.store(false, Ordering::Relaxed);
        let (mut text, mut stop, mut fault) = (String::new(), None, None);
        let mut reads = true;
        for event in generation.by_ref() {
            let event = match event {
                Ok(event) => event,
                Err(e) => {
                    fault = Some(e);
                    break;
                }
            };
            text += &event.text;
            stop = event.stop.or(stop);
            if !self.output.json {
                let mut out = std::io::stdout().lock();
                reads = out.write_all(event.text.as_bytes()).and_then(|()| out.flush()).is_ok();
            }
            if !reads || STOPPED.load(Ordering::Relaxed) {
                break;
            }
        }
        let statistics = generation.statistics();
        if let Some(e) = fault {
            return Err(CliError::language(e));
        }
        self.messages.push(Message::assistant(text.trim_end()));
        if reads {
            self.tell(&text, stop, &statistics)?;
        }
        Ok(reads)
    }

    fn tell(&self, text: &str, stop: Option<StopReason>, s: &Statistics) -> Result<(), CliError> {
        if self.output.json {
            // One object a line: a conversation has many.
            let stop = stop.map_or("interrupted".into(), |s| s.to_string());
            println!(
                "{}",
                json!({
                    "text": text, "stop": stop, "prompt_tokens": s.prompt_tokens, "new_tokens": s.new_tokens,
                    "seconds_to_first": s.first.as_secs_f64(), "tokens_per_second": s.speed(1),
                })
            );
            return Ok(());
        }
        println!();
        let context = match stop {
            Some(StopReason::Context) => "; the context is full: /reset begins anew",
            _ => "",
        };
        self.output.note(&format!(
            "({} + {} tokens, {:.1} tokens/s, first after {:.2} s{context})",
            s.prompt_tokens,
            s.new_tokens,
            s.speed(1),
            s.first.as_secs_f64()
        ));
        Ok(())
    }
}
