//! `mobilis generate MODEL PROMPT..`.

use super::choosing::ChooseArguments;
use super::language::{self, Language, LoadArguments};
use super::{CliError, Output};
use mobilis_zoo::generate::{
    BeamOptions, Draft, EarlyStopping, Event, Generation, Request, Speculation, Statistics, StopReason,
};
use mobilis_zoo::text::{ChatOptions, Message};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    load: LoadArguments,
    /// What shall be continued; several are worked on together. Without any, standard input.
    prompts: Vec<String>,
    /// A file whose text shall be continued; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// A prompt as the ids of its tokens.
    #[arg(long, value_name = "ID,..", value_parser = ids)]
    ids: Vec<Ids>,
    /// Ask as a user in a conversation: prompts are put into the model's chat template.
    #[arg(long)]
    chat: bool,
    /// What the model is told before the conversation; means --chat.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    choose: ChooseArguments,
    /// Search so many hypotheses side by side for the likeliest text.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    beams: Option<u32>,
    /// How many of the best texts of a beam search are printed.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "beams", value_parser = clap::value_parser!(u32).range(1..))]
    best: u32,
    /// The exponent of the length that beams' scores are divided by.
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "beams")]
    length_penalty: f32,
    /// When a beam search ends: with as many texts as beams (always), when it looks as if none were
    /// better (heuristic), or when none can be (never).
    #[arg(long, value_name = "WHEN", default_value = "heuristic", requires = "beams", value_parser = early)]
    early_stopping: EarlyStopping,
    /// Guess tokens by what followed the last ones earlier in the text: fewer calls, the same text.
    #[arg(long, value_name = "TOKENS", num_args = 0..=1, default_missing_value = "7", value_parser = clap::value_parser!(u32).range(1..=512))]
    lookup: Option<u32>,
    /// Guess tokens by a smaller model with the same tokenizer: the same text, sooner.
    #[arg(long, value_name = "MODEL", conflicts_with = "lookup")]
    draft: Option<String>,
    /// How many tokens the draft model guesses at a time.
    #[arg(long, value_name = "TOKENS", default_value_t = 3, requires = "draft", value_parser = clap::value_parser!(u32).range(1..=512))]
    draft_tokens: u32,
    /// Print the text as it comes, which one text on a terminal does anyway.
    #[arg(long)]
    stream: bool,
    /// Print the prompt, too.
    #[arg(long)]
    echo: bool,
}

#[derive(Clone, Debug)]
struct Ids(Vec<u32>);

fn ids(text: &str) -> Result<Ids, String> {
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let ids: Result<Vec<u32>, _> =
        parts.map(|part| part.parse().map_err(|_| format!("`{part}` is no id of a token"))).collect();
    Ok(Ids(ids?))
}

fn early(text: &str) -> Result<EarlyStopping, String> {
    match text {
        "always" => Ok(EarlyStopping::Always),
        "heuristic" => Ok(EarlyStopping::Heuristic),
        "never" => Ok(EarlyStopping::Never),
        _ => {
            let names = ["always", "heuristic", "never"];
            let hint = mobilis_runtime::suggest::did_you_mean(text, names);
            Err(format!("expected always, heuristic or never{hint}"))
        }
    }
}

/// A prompt as text, where it was given so, and its tokens.
struct Prompt {
    text: Option<String>,
    ids: Vec<u32>,
}

/// What came of a prompt.
#[derive(Default)]
struct Written {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<Value>,
    stop: Option<StopReason>,
    score: Option<f32>,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let texts = texts(arguments)?;
    let language = arguments.load.open(output)?;
    let prompts = prompts(arguments, &language, texts)?;
    if let Some(beams) = arguments.beams {
        return search(arguments, &language, &prompts, beams, output);
    }
    let mut requests = vec![];
    let choosers = arguments.choose.choosers(&language)?;
    for prompt in &prompts {
        requests.push(Request { prompt: prompt.ids.clone(), most: choosers.most(), chooser: choosers.of(0) });
    }
    let mut generation = match arguments.load.translator(&language)? {
        Some(translator) => {
            if arguments.draft.is_some() || arguments.lookup.is_some() {
                let message = "an encoder-decoder takes no --lookup and no --draft";
                return Err(CliError::Arguments(message.into()));
            }
            translator.generate(requests).map_err(CliError::language)?
        }
        None => continuing(arguments, &language, requests, output)?,
    };
    let alone = prompts.len() == 1;
    let stream = !output.json && alone && (arguments.stream || std::io::stdout().is_terminal());
    let mut written: Vec<Written> = prompts.iter().map(|_| Written::default()).collect();
    if stream && arguments.echo {
        emit(prompts[0].text.as_deref().unwrap_or_default())?;
    }
    for event in generation.by_ref() {
        let event = event.map_err(CliError::language)?;
        if stream && !emit(&shown(&language, &event))? {
            return Ok(());
        }
        written[event.row].take(event);
    }
    let statistics = generation.statistics();
    if stream {
        emit("\n")?;
    }
    note(&statistics, &generation, output);
    if stream {
        return Ok(());
    }
    let texts: Vec<(&Prompt, &Written)> = prompts.iter().zip(&written).collect();
    output.result(
        || report(arguments, &language, &texts),
        || object(arguments, &language, &texts, Some((&statistics, prompts.len()))),
    )
}

/// The generation of a model that continues texts.
fn continuing(
    arguments: &Arguments,
    language: &Language,
    requests: Vec<Request>,
    output: &Output,
) -> Result<Generation<'static>, CliError> {
    let generator = arguments.load.generator(language)?;
    let draft = match &arguments.draft {
        Some(place) => Some(arguments.load.open_place(place, output)?),
        None => None,
    };
    let speculation = match (&draft, arguments.lookup) {
        (Some(draft), _) => {
            let lane = arguments.load.generator(draft)?.lane(requests.len(), generator.positions());
            Speculation::Draft(Draft::new(lane), arguments.draft_tokens as usize)
        }
        (None, Some(most)) => Speculation::Lookup(most as usize),
        (None, None) => Speculation::None,
    };
    generator.generate(requests, speculation).map_err(CliError::language)
}

impl Written {
    fn take(&mut self, event: Event) {
        self.text += &event.text;
        if let Some(token) = event.token {
            self.ids.push(token.id);
            self.logprobs.extend(token.logprob.map(|p| json!({ "id": token.id, "logprob": p, "top": token.top })));
        }
        self.stop = event.stop.or(self.stop.take());
    }
}

/// The texts that are given, before there is a tokenizer.
fn texts(arguments: &Arguments) -> Result<Vec<String>, CliError> {
    let mut texts = arguments.prompts.clone();
    for file in &arguments.file {
        texts.push(language::text_of(file)?);
    }
    if texts.is_empty() && arguments.ids.is_empty() {
        if std::io::stdin().is_terminal() {
            let message = "give a prompt: as an argument, with --file, --ids or through standard input";
            return Err(CliError::Arguments(message.into()));
        }
        texts.push(language::text_of("-".as_ref())?);
    }
    Ok(texts)
}

fn prompts(arguments: &Arguments, language: &Language, texts: Vec<String>) -> Result<Vec<Prompt>, CliError> {
    let mut all = vec![];
    for text in texts {
        let tokenizer = language.tokenizer()?;
        let ids = if arguments.chat || arguments.system.is_some() {
            let template = tokenizer.chat_template(None).map_err(CliError::language)?;
            let system = arguments.system.iter().map(Message::system);
            let messages: Vec<Message> = system.chain([Message::user(&text)]).collect();
            let rendered = template.render(&messages, &ChatOptions::to_answer()).map_err(CliError::language)?;
            tokenizer.encode(&rendered, false)
        } else {
            tokenizer.encode(&text, true)
        };
        let mut ids = ids.map_err(CliError::language)?;
        if ids.is_empty() {
            ids.extend(tokenizer.bos());
        }
        all.push(Prompt { text: Some(text), ids });
    }
    all.extend(arguments.ids.iter().map(|ids| Prompt { text: None, ids: ids.0.clone() }));
    Ok(all)
}

/// The best texts by beam search, prompt by prompt.
fn search(
    arguments: &Arguments,
    language: &Language,
    prompts: &[Prompt],
    beams: u32,
    output: &Output,
) -> Result<(), CliError> {
    let wanted = arguments.choose.for_beams(language)?;
    let translator = arguments.load.translator(language)?;
    let options = BeamOptions {
        beams: beams as usize,
        best: arguments.best.min(beams) as usize,
        length_penalty: arguments.length_penalty,
        early_stopping: arguments.early_stopping,
    };
    let mut all: Vec<(&Prompt, Written)> = vec![];
    for prompt in prompts {
        let found = match &translator {
            Some(translator) => translator.beams(&prompt.ids, &wanted, options),
            None => arguments.load.generator(language)?.beams(&prompt.ids, &wanted, options),
        };
        for hypothesis in found.map_err(CliError::language)? {
            let last = hypothesis.tokens.last().copied();
            let stop = last.filter(|id| wanted.stop_tokens.contains(id)).map_or(StopReason::Length, StopReason::Token);
            let text = language.words().map(|t| t.decode(&hypothesis.tokens, true));
            all.push((
                prompt,
                Written {
                    text: text.unwrap_or_default(),
                    ids: hypothesis.tokens,
                    stop: Some(stop),
                    score: Some(hypothesis.score),
                    ..Written::default()
                },
            ));
        }
    }
    let texts: Vec<(&Prompt, &Written)> = all.iter().map(|(prompt, written)| (*prompt, written)).collect();
    output.result(|| report(arguments, language, &texts), || object(arguments, language, &texts, None))
}

/// What of an event people read: text, or ids where there is no tokenizer.
fn shown(language: &Language, event: &Event) -> String {
    match (&event.token, language.words()) {
        (Some(token), None) => format!("{} ", token.id),
        _ => event.text.clone(),
    }
}

/// Prints a piece of text at once. Whether somebody still reads.
fn emit(text: &str) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(CliError::Write { path: "standard output".into(), source }),
    }
}

fn note(statistics: &Statistics, generation: &Generation, output: &Output) {
    let s = statistics;
    let mut text = format!(
        "prompt: {} tokens, {:.0} tokens/s; new: {} tokens, {:.1} tokens/s; first after {:.3} s",
        s.prompt_tokens,
        s.prompt_speed(),
        s.new_tokens,
        s.speed(generation.texts()),
        s.first.as_secs_f64()
    );
    if s.guessed > 0 {
        text += &format!("; {} of {} guesses right, {} calls", s.accepted, s.guessed, s.calls);
    }
    output.note(&text);
}

fn report(arguments: &Arguments, language: &Language, texts: &[(&Prompt, &Written)]) -> String {
    let body = |(prompt, written): &(&Prompt, &Written)| {
        let text = match language.words() {
            Some(_) => written.text.clone(),
            None => written.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        };
        match (&prompt.text, arguments.echo) {
            (Some(before), true) => format!("{before}{text}"),
            _ => text,
        }
    };
    if let [one] = texts {
        return body(one);
    }
    let one = |(i, text): (usize, &(&Prompt, &Written))| {
        let score = text.1.score.map(|s| format!(", score {s:.4}")).unwrap_or_default();
        format!("--- {}{score}\n{}\n", i + 1, body(text))
    };
    texts.iter().enumerate().map(one).collect()
}

fn object(
    arguments: &Arguments,
    language: &Language,
    texts: &[(&Prompt, &Written)],
    statistics: Option<(&Statistics, usize)>,
) -> Value {
    let one = |(prompt, written): &(&Prompt, &Written)| {
        let mut object = json!({ "prompt_ids": prompt.ids, "ids": written.ids });
        if let Some(text) = &prompt.text {
            object["prompt"] = json!(text);
        }
        if language.words().is_some() {
            object["text"] = json!(written.text);
        }
        if let Some(stop) = &written.stop {
            object["stop"] = json!(stop.to_string());
        }
        if !written.logprobs.is_empty() {
            object["logprobs"] = json!(written.logprobs);
        }
        if let Some(score) = written.score {
            object["score"] = json!(score);
        }
        object
    };
    let mut object = json!({ "model": arguments.load.model, "texts": texts.iter().map(one).collect::<Vec<_>>() });
    if let Some((s, texts)) = statistics {
        object["statistics"] = json!({
            "prompt_tokens": s.prompt_tokens, "new_tokens": s.new_tokens, "calls": s.calls,
            "guessed": s.guessed, "accepted": s.accepted, "seconds_to_first": s.first.as_secs_f64(),
            "seconds_after_first": s.rest.as_secs_f64(), "prompt_tokens_per_second": s.prompt_speed(),
            "tokens_per_second": s.speed(texts),
        });
    }
    object
}
