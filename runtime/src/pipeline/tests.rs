//! Whole pipelines: what runs, in which order, and what happens when something fails.

use super::*;
use crate::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod company;

axes! { Batch; Time; Width = 2; }

pipeline! {
    /// Two branches that meet.
    struct Words {
        /// Cuts at spaces.
        split: fn(String) -> Vec<String>,
        count: fn(words: Vec<String>, least: usize = 1) -> usize,
        longest: fn(Vec<String>, otherwise: Option<String>) -> (word: String, length: usize),
        say: fn(count: usize, word: String) -> String,
    }
    fn run(text: String, otherwise: Option<String>) -> (said: String, length: usize) {
        let words = split(text);
        let n = count(words);
        let (word, length) = longest(words, otherwise: otherwise);
        (say(n, word), length)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no words")]
struct NoWords;

fn words() -> Words {
    Words::new(
        pure(|text: String| text.split_whitespace().map(String::from).collect::<Vec<_>>()),
        pure(|(words, least): (Vec<String>, usize)| words.iter().filter(|w| w.len() >= least).count()),
        |(words, otherwise): (Vec<String>, Option<String>)| {
            let word = words.into_iter().max_by_key(String::len).or(otherwise).ok_or(NoWords)?;
            let length = word.len();
            Ok::<_, NoWords>((word, length))
        },
        pure(|(n, word): (usize, String)| format!("{n} words, the longest is {word}")),
    )
}

#[test]
fn branches_meet_and_optional_inputs_may_be_left_out() {
    let words = words();
    assert_eq!(words.run("a bcd ef".to_string()).expect("words"), ("3 words, the longest is bcd".into(), 3));
    let none = words.run(("".to_string(), Some("none".to_string()))).expect("a word otherwise");
    assert_eq!(none, ("0 words, the longest is none".into(), 4));
    let e = words.run("".to_string()).expect_err("no words");
    assert_eq!(e.to_string(), "stage `longest` of `Words`: no words");
}

#[test]
fn a_trace_holds_every_named_result_and_times() {
    let traced = words().run_traced("a bcd".to_string()).expect("words");
    assert_eq!(traced.values.words, ["a", "bcd"]);
    assert_eq!((traced.values.n, traced.values.word.as_str(), traced.values.length), (2, "bcd", 3));
    assert_eq!(traced.output.1, 3);
    let stages: Vec<_> = traced.times.iter().map(|t| t.0).collect();
    assert_eq!(stages, ["split", "count", "longest", "say"]);
}

#[test]
fn a_batch_gives_each_item_its_result_or_error() {
    let words = words();
    let results = words.run_batch(["a b".to_string(), String::new(), "c".to_string()]);
    let lengths: Vec<_> = results.iter().map(|r| r.as_ref().ok().map(|r| r.1)).collect();
    assert_eq!(lengths, [Some(1), None, Some(1)]);
    let timing = words.timing();
    assert_eq!(timing.0[3].items, 2);
    assert!(timing.to_string().contains("longest"), "{timing}");
    words.reset_timing();
    assert_eq!(words.timing().0[0].items, 0);
}

pipeline! {
    struct Line {
        first: fn(usize) -> usize,
        second: fn(usize) -> usize,
    }
    fn run(x: usize) -> usize {
        second(first(x))
    }
}

pipeline! {
    struct Nested {
        inner: fn(usize) -> usize,
        last: fn(usize) -> String,
    }
    fn run(x: usize) -> String {
        let y = inner(x);
        last(y)
    }
}

#[test]
fn pipelines_nest_and_their_stages_can_be_replaced() {
    let line = Line::new(pure(|x: usize| x + 1), pure(|x: usize| x * 10));
    let mut nested = Nested::new(line.clone(), pure(|x: usize| x.to_string()));
    assert_eq!(nested.run(1).expect("it runs"), "20");
    nested.set_inner(pure(|x: usize| x));
    assert_eq!(nested.run(1).expect("it runs"), "1");
    let mut other = line.clone();
    other.set_second(|x: usize| if x > 2 { Err(NoWords) } else { Ok(x) });
    nested.set_inner(other);
    let e = nested.run(2).expect_err("the inner stage refuses");
    assert_eq!(e.to_string(), "stage `inner` of `Nested`: stage `second` of `Line`: no words");
    // The one that was cloned is as it was.
    assert_eq!(line.run(2).expect("it runs"), 30);
}

#[test]
fn a_stage_of_another_length_of_batch_is_named() {
    struct Wrong;
    impl Stage<usize> for Wrong {
        type Output = usize;
        type Error = NoWords;
        fn run(&self, x: usize) -> Result<usize, NoWords> {
            Ok(x)
        }
        fn run_batch(&self, _: Vec<usize>) -> Vec<Result<usize, NoWords>> {
            vec![Ok(1)]
        }
    }
    let line = Line::new(Wrong, pure(|x: usize| x));
    let results = line.run_batch([1, 2]);
    let e = results[1].as_ref().expect_err("one result for two items");
    assert_eq!(e.to_string(), "stage `first` of `Line` was given a batch of 2 items and gave 1 results");
}

#[test]
fn panics_are_errors_of_their_item() {
    let line = Line::new(
        pure(|x: usize| {
            assert!(x != 1, "one is bad");
            x
        }),
        pure(|x: usize| x),
    );
    let results: Vec<_> = line.stream(0..3).collect();
    assert_eq!(results.len(), 3);
    assert!(results[0].is_ok() && results[2].is_ok());
    let e = results[1].as_ref().expect_err("a panic");
    assert_eq!(e.to_string(), "stage `first` of `Line` panicked: one is bad");
    let bad = (0..3).inspect(|i| assert!(*i < 2, "the input broke"));
    let results: Vec<_> = line.stream(bad).collect();
    assert_eq!(results[0].as_ref().ok(), Some(&0));
    assert!(matches!(results.last(), Some(Err(PipelineError::Input { .. }))), "{results:?}");
}

/// Small random numbers, so that runs differ and can be repeated.
struct Random(Cell<u64>);
impl Random {
    fn below(&self, n: u64) -> u64 {
        self.0.set(self.0.get().wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
        (self.0.get() >> 33) % n
    }
}

#[test]
fn streams_keep_the_order_whatever_stages_take_and_wherever_items_fail() {
    for seed in 0..30 {
        let random = Random(Cell::new(seed));
        let items = random.below(40) as usize;
        let options = StreamOptions { capacity: random.below(4) as usize, batch: random.below(5) as usize };
        let naps: Vec<u64> = (0..items).map(|_| random.below(300)).collect();
        let (a, b) = (naps.clone(), naps);
        let line = Line::new(
            move |x: usize| {
                std::thread::sleep(Duration::from_micros(a[x]));
                if x % 7 == 3 { Err(NoWords) } else { Ok(2 * x) }
            },
            move |x: usize| {
                std::thread::sleep(Duration::from_micros(b[b.len() - 1 - x / 2]));
                if x % 11 == 4 { Err(NoWords) } else { Ok(x + 1) }
            },
        );
        let alone: Vec<String> = (0..items).map(|x| format!("{:?}", line.run(x).map_err(|e| e.to_string()))).collect();
        let streamed: Vec<String> =
            line.stream_with(options, 0..items).map(|r| format!("{:?}", r.map_err(|e| e.to_string()))).collect();
        assert_eq!(streamed, alone, "seed {seed}");
        let batch: Vec<String> =
            line.run_batch(0..items).into_iter().map(|r| format!("{:?}", r.map_err(|e| e.to_string()))).collect();
        assert_eq!(batch, alone, "seed {seed}");
    }
}

#[test]
fn stages_overlap() {
    // Each stage waits for the other to be at work on another item: in turns neither would go on.
    let (to_second, from_first) = mpsc::channel::<()>();
    let (to_first, from_second) = mpsc::channel::<()>();
    let (from_first, from_second) = (Mutex::new(from_first), Mutex::new(from_second));
    let long = Duration::from_secs(20);
    let (to_second, to_first) = (Mutex::new(to_second), Mutex::new(to_first));
    let line = Line::new(
        move |x: usize| {
            if x == 1 {
                to_second.lock().expect("sound").send(()).map_err(|_| NoWords)?;
                from_second.lock().expect("sound").recv_timeout(long).map_err(|_| NoWords)?;
            }
            Ok::<_, NoWords>(x)
        },
        move |x: usize| {
            if x == 0 {
                from_first.lock().expect("sound").recv_timeout(long).map_err(|_| NoWords)?;
                to_first.lock().expect("sound").send(()).map_err(|_| NoWords)?;
            }
            Ok::<_, NoWords>(x)
        },
    );
    let results: Vec<usize> = line.stream(0..2).collect::<Result<_, _>>().expect("both at once");
    assert_eq!(results, [0, 1]);
}

#[test]
fn a_slow_stage_holds_back_the_fast_ones() {
    static READ: AtomicUsize = AtomicUsize::new(0);
    let line = Line::new(pure(|x: usize| x), pure(|x: usize| x));
    let inputs = (0..10_000).inspect(|_| {
        READ.fetch_add(1, SeqCst);
    });
    let options = StreamOptions { capacity: 2, batch: 1 };
    let mut stream = line.stream_with(options, inputs);
    assert_eq!(stream.next().expect("one").expect("it runs"), 0);
    // Until nothing moves any more: nobody takes results.
    let mut seen = 0;
    let start = Instant::now();
    while seen != READ.load(SeqCst) || start.elapsed() < Duration::from_millis(200) {
        seen = READ.load(SeqCst);
        std::thread::sleep(Duration::from_millis(20));
    }
    // Three queues of two, two stages and the input each with one in hand, and the one that was taken.
    assert!(seen <= 3 * 2 + 3 + 1, "{seen} items were read ahead");
}

#[test]
fn dropping_a_stream_stops_its_stages() {
    for taken in [0, 1, 5] {
        let alive = Arc::new(());
        let (one, two) = (alive.clone(), alive.clone());
        let line = Line::new(
            move |x: usize| {
                let _ = &one;
                Ok::<_, NoWords>(x)
            },
            pure(move |x: usize| {
                let _ = &two;
                x
            }),
        );
        let mut stream = line.stream(0..);
        for i in 0..taken {
            assert_eq!(stream.next().expect("endless").expect("it runs"), i);
        }
        drop((stream, line));
        // The input's thread goes when it notices; the stages' are gone.
        let start = Instant::now();
        while Arc::strong_count(&alive) > 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "a thread still holds a stage");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn dropping_a_stream_does_not_wait_for_an_input_that_never_comes() {
    let (sender, receiver) = mpsc::channel::<usize>();
    let line = Line::new(pure(|x: usize| x), pure(|x: usize| x));
    let mut stream = line.stream(receiver);
    sender.send(7).expect("the stream reads");
    assert_eq!(stream.next().expect("one").expect("it runs"), 7);
    drop(stream);
    drop(sender);
}

#[test]
fn a_cancelled_stream_says_so_and_ends() {
    for seed in 0..20 {
        let random = Random(Cell::new(seed));
        let line = Line::new(pure(|x: usize| x), pure(|x: usize| x));
        let mut stream = line.stream(0..);
        let canceller = stream.canceller();
        let wait = Duration::from_micros(random.below(3000));
        let elsewhere = std::thread::spawn(move || {
            std::thread::sleep(wait);
            canceller.cancel();
        });
        let mut expected = 0;
        let e = loop {
            match stream.next().expect("an endless stream ends with an error") {
                Ok(x) => assert_eq!(x, expected),
                Err(e) => break e,
            }
            expected += 1;
        };
        assert_eq!(e.to_string(), "`Line` was cancelled");
        assert!(stream.next().is_none());
        elsewhere.join().expect("it cancels");
    }
}

// ---- programs for a batch ------------------------------------------------------------------

type Sound = Padded<(Batch, Time, Width), Channels>;

/// A running sum that knows nothing of what lies behind an item's end.
fn summed(x: Sound) -> (Padded<(Batch, Time, Width), Channels>, Tensor![Batch, Width]) {
    let sum = x.values.plain().cumsum(Time);
    (Padded::new(sum.assume(), x.lengths), sum.sum(Time))
}

pipeline! {
    struct Sums {
        make: fn(Vec<f32>) -> Array![Time, Width; Channels],
        sum: fn(Array![Time, Width; Channels]) -> (sums: Array![Time, Width; Channels], total: Array![Width]),
    }
    fn run(values: Vec<f32>) -> (sums: Array![Time, Width; Channels], total: Array![Width]) {
        sum(make(values))
    }
}

#[test]
fn items_are_padded_run_together_and_cut_again() {
    let model = Model::init((), 0).expect("no parameters");
    let program = model.compile(|(), x: Sound| summed(x)).expect("it compiles").per_item();
    let sums = Sums::new(|values: Vec<f32>| Array::from_vec(values), program);
    let items: Vec<Vec<f32>> = (1..6).map(|n| (0..2 * n).map(|i| 0.1 + i as f32).collect()).collect();
    let together = sums.run_batch(items.clone());
    for (item, result) in items.into_iter().zip(together) {
        let n = item.len() / 2;
        let alone = sums.run(item).expect("it runs");
        let together = result.expect("it runs");
        assert_eq!(together.0.sizes(), [n, 2]);
        assert_eq!(together.0, alone.0);
    }
    assert!(sums.memory() > 0);
    // What is not whole rows fails in its place.
    let results = sums.run_batch([vec![1.0], vec![1.0, 2.0]]);
    assert!(results[0].is_err() && results[1].is_ok());
}

#[cfg(feature = "draw")]
#[test]
fn drawings_show_stages_values_and_what_is_inside() {
    use crate::graph::print::Format;
    let line = Line::new(pure(|x: usize| x), pure(|x: usize| x));
    let nested = Nested::new(line, pure(|x: usize| x.to_string()));
    let text = nested.draw(Format::Text);
    let expected = "Nested(x: usize) -> (String)\n  inner(x) = y: usize   [Line]\n    Line(x: usize) -> (usize)\n      \
                    first(x) = first: usize   [closure]\n      second(first) = second: usize   [closure]\n      -> second\n  \
                    last(y) = last: String   [closure]\n  -> last\n";
    assert_eq!(text, expected);
    let chart = words().draw(Format::Mermaid);
    assert!(chart.starts_with("flowchart TD\n"), "{chart}");
    assert!(chart.contains("i1 -->|\"otherwise<br/>Option#lt;String#gt;\"| c2"), "{chart}");
    assert!(chart.contains("c3 -->|\"say<br/>String\"| o0"), "{chart}");
    assert!(nested.draw(Format::Mermaid).contains("subgraph c0 [\"inner: Line\"]"));
    let page = words().draw(Format::Html);
    assert!(page.contains("id=\"c2\"") && page.contains("[\"i1\",\"c2\","), "{page}");
    assert!(page.ends_with("</html>\n") && !page.contains("Option<String>"), "types are escaped");
}
