//! Broken and hostile files and texts: an error in words, soon, and no more memory than the input's size
//! deserves.

use std::time::{Duration, Instant};

use mobilis_zoo::text::sentencepiece::{Model, ModelFile, ModelKind, Normalizer, Piece, PieceKind, Trie, proto};
use mobilis_zoo::text::{ChatOptions, ChatTemplate, GgufVocabulary, Message, TextError, Tokenizer, TokenizerConfig};
use serde_json::json;

use crate::stream::Numbers;
use crate::support::golden;

fn render(template: &str) -> Result<String, TextError> {
    let template = ChatTemplate::new(template, "a template", &TokenizerConfig::default())?;
    template.render(&[Message::user("hi")], &ChatOptions::to_answer())
}

#[test]
fn templates_that_do_not_end_are_stopped() {
    let start = Instant::now();
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(100000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% set s = namespace(x='a') %}{% for a in range(99999) %}{% set s.x = s.x ~ 'aaaaaaaaaaaaaaaa' %}{{ s.x }}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
    ] {
        let error = render(source).unwrap_err();
        assert!(matches!(error, TextError::Template { .. }), "{source}: {error}");
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn wrong_templates_say_where_and_what() {
    for (source, expected) in [
        ("a\n{% if %}", "line 2"),
        ("{{ messages[0].role.x.y }}", "undefined"),
        ("{{ nothing() }}", "nothing"),
        ("{{ 'a' | nofilter }}", "nofilter"),
        ("{{ strftime_now('%Q') }}", "%Q"),
    ] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains("a template") && error.contains(expected), "{source}: {error}");
    }
    let error = render("{{ raise_exception('roles ' ~ 1) }}").unwrap_err();
    assert!(matches!(&error, TextError::Refused { why, .. } if why == "roles 1"), "{error}");
    assert!(render(&"x".repeat(5 << 20)).is_err());
}

#[test]
fn templates_have_what_transformers_gives_them() {
    for (source, expected) in [
        ("{{ [1, 'é', {'b': none, 'a': 1.5}] | tojson }}", r#"[1, "é", {"b": null, "a": 1.5}]"#),
        ("{{ {'b': [], 'a': {}} | tojson(indent=2) }}", "{\n  \"b\": [],\n  \"a\": {}\n}"),
        ("{{ {'b': [1], 'a': '<&\"'} | tojson(sort_keys=true) }}", r#"{"a": "<&\"", "b": [1]}"#),
        ("{{ 'a b'.split()[1].upper() ~ messages[0].get('x', 'y') }}", "By"),
        ("{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ a }}{% endfor %}", "13"),
        ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
        ("{%- generation -%} a {%- endgeneration %}b", "ab"),
        ("{{ 'x'.strip() if messages[0]['content'] is string }}{{ tools is none }}", "xTrue"),
        ("{{ messages | length }}{{ bos_token is defined }}", "1False"),
        ("{{ messages[0].items() | list | length }}", "2"),
    ] {
        let found = render(source).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_eq!(found, expected, "{source}");
    }
}

#[test]
fn random_changes_of_sentencepiece_models_never_panic() {
    let Some(root) = golden() else { return };
    let mut numbers = Numbers(3);
    for kind in ["sp_unigram", "sp_bpe"] {
        let bytes = std::fs::read(root.join("tokenizers").join(kind).join("tokenizer.model")).unwrap();
        for end in (0..400).chain((0..60).map(|i| bytes.len() * i / 60)) {
            let _ = proto::read(&bytes[..end]);
        }
        // The parts apart: all pieces and settings, without most of the table, so that changes hit them.
        let settings = proto::read(&bytes).unwrap();
        for round in 0..400 {
            let mut changed = bytes.clone();
            for _ in 0..1 + numbers.below(6) {
                let at = match round % 3 {
                    0 => numbers.below(changed.len()),
                    1 => numbers.below(20_000.min(changed.len())),
                    _ => changed.len() - 1 - numbers.below(2000),
                };
                match numbers.below(3) {
                    0 => changed[at] = numbers.below(256) as u8,
                    1 => changed[at] ^= 1 << numbers.below(8),
                    _ => drop(changed.drain(at..(at + numbers.below(9)).min(changed.len()))),
                }
            }
            let made = Tokenizer::from_sentencepiece(&changed, TokenizerConfig::default());
            if let (Ok(tokenizer), true) = (made, round % 20 == 0) {
                let ids = tokenizer.encode(" ﬁne\u{0}１２ 東京 \u{1F999}é", true).unwrap();
                tokenizer.decode(&ids, false);
            }
        }
        // A table of noise, and one whose trie leads nowhere.
        for round in 0..200 {
            let mut map = settings.charsmap.clone();
            for _ in 0..50 {
                let at = 4 + numbers.below(map.len() - 4);
                map[at] = numbers.below(if round % 2 == 0 { 128 } else { 256 }) as u8;
            }
            if let Ok(normalizer) = Normalizer::with_charsmap(&map) {
                let normalized = normalizer.normalize("ﬁ １ é 東 \u{300}", &Trie::default(), true);
                assert_eq!(normalized.origin.len(), normalized.text.len() + usize::from(!normalized.origin.is_empty()));
            }
        }
    }
    for bytes in [&b""[..], b"\x0a", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"hello, this is not a model"] {
        let error = proto::read(bytes).unwrap_err().to_string();
        assert!(error.contains("SentencePiece model"), "{error}");
    }
}

/// A model of a few pieces; unknown is 0.
fn small(kind: ModelKind, pieces: &[(&str, f32, PieceKind)]) -> Model {
    let unknown = Piece { text: "<unk>".into(), score: 0.0, kind: PieceKind::Unknown };
    let pieces = pieces.iter().map(|(text, score, kind)| Piece { text: (*text).into(), score: *score, kind: *kind });
    let file = ModelFile {
        pieces: std::iter::once(unknown).chain(pieces).collect(),
        kind,
        add_dummy_prefix: false,
        remove_extra_whitespaces: false,
        ..ModelFile::default()
    };
    Model::new(file).unwrap()
}

#[test]
fn unused_and_user_defined_pieces_are_treated_as_the_library_does() {
    use PieceKind::{Normal, Unused, UserDefined};
    let ids = |model: &Model, text: &str| model.encode(text, true).iter().map(|f| f.id).collect::<Vec<_>>();
    let pieces =
        [("a", -1.0, Normal), ("b", -2.0, Normal), ("ab", -0.5, Unused), ("abc", -0.1, Unused), ("c", -3.0, Normal)];
    let bpe = small(ModelKind::Bpe, &pieces);
    assert_eq!(ids(&bpe, "abcab"), [1, 2, 5, 1, 2]);
    let unigram = small(ModelKind::Unigram, &pieces);
    assert_eq!(ids(&unigram, "abcab"), [1, 2, 5, 1, 2]);
    let pieces = [
        ("a", -1.0, Normal),
        ("b", -1.0, Normal),
        ("aa", -9.0, UserDefined),
        ("ab", -5.0, Normal),
        ("c", -0.2, Normal),
    ];
    assert_eq!(ids(&small(ModelKind::Bpe, &pieces), "aaab"), [3, 4]);
    assert_eq!(ids(&small(ModelKind::Unigram, &pieces), "aab"), [3, 2]);
    // Runs of unknown characters are one piece; the places stay right.
    let found = small(ModelKind::Unigram, &[("a", -1.0, Normal)]).encode("xéa", true);
    assert_eq!(found.iter().map(|f| (f.id, f.start, f.end)).collect::<Vec<_>>(), [(0, 0, 3), (1, 3, 4)]);
}

#[test]
fn huge_texts_take_their_time_and_no_more() {
    let Some(root) = golden() else { return };
    let start = Instant::now();
    for kind in ["sp_unigram", "sp_bpe", "llama2", "gemma", "llama3", "bert"] {
        let tokenizer = Tokenizer::from_folder(root.join("tokenizers").join(kind)).unwrap();
        for text in [" ".repeat(200_000), "a".repeat(200_000), "\u{301}".repeat(100_000), "\n \t".repeat(60_000)] {
            let ids = tokenizer.encode(&text, true).unwrap();
            assert!(ids.len() <= text.len() + 2, "{kind}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn broken_tokenizer_files_are_errors() {
    let Some(root) = golden() else { return };
    let mut numbers = Numbers(1);
    for kind in ["gpt2", "bert", "t5", "llama2"] {
        let text = std::fs::read_to_string(root.join("tokenizers").join(kind).join("tokenizer.json")).unwrap();
        for end in (0..text.len()).step_by(text.len() / 40) {
            if text.is_char_boundary(end) {
                assert!(Tokenizer::from_json(&text.as_bytes()[..end], TokenizerConfig::default()).is_err());
            }
        }
        for _ in 0..150 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..3 {
                let at = numbers.below(bytes.len());
                bytes[at] = b"0123456789abcdef\"[]{},:-"[numbers.below(24)];
            }
            if let Ok(tokenizer) = Tokenizer::from_json(&bytes, TokenizerConfig::default()) {
                if let Ok(ids) = tokenizer.encode("Hello, wörld <s> 12", true) {
                    tokenizer.decode(&ids, false);
                }
                tokenizer.decode(&[0, 5, 300, u32::MAX], true);
            }
        }
    }
    let error = Tokenizer::from_folder(std::env::temp_dir().join("no such folder")).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("merges.txt"), "{error}");
}

/// A GGUF vocabulary of single letters.
fn letters() -> GgufVocabulary {
    let tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "abc", "c"].map(str::to_owned).to_vec();
    let mut types = vec![PieceKind::Normal; tokens.len()];
    (types[0], types[1], types[2]) = (PieceKind::Unknown, PieceKind::Control, PieceKind::Control);
    GgufVocabulary {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        scores: (0..tokens.len()).map(|i| -(i as f32)).collect(),
        types,
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        merges: ["a b", "ab c"].map(str::to_owned).to_vec(),
        tokens,
        ..GgufVocabulary::default()
    }
}

#[test]
fn broken_gguf_vocabularies_say_what_is_wrong() {
    assert_eq!(Tokenizer::from_gguf(letters()).unwrap().encode("abcab", true).unwrap(), [6, 5]);
    let cases: [(&str, fn(&mut GgufVocabulary)); 12] = [
        ("bos_token is 99", |v| v.bos = Some(99)),
        ("entries for 8 tokens", |v| v.scores.truncate(3)),
        ("entries for 8 tokens", |v| v.types.push(PieceKind::Byte)),
        ("not a number", |v| v.scores[2] = f32::NAN),
        ("1 to 2^32 tokens", |v| v.tokens.clear()),
        ("expected two tokens", |v| v.merges[1] = "abc".into()),
        ("expected two tokens", |v| v.merges[0] = " ".into()),
        ("`zz`", |v| v.merges[0] = "a zz".into()),
        ("longer than any token", |v| v.merges[0] = "abc abc".into()),
        ("did you mean `gpt-2`", |v| v.pre = Some("gpt2".into())),
        ("did you mean `bert`", |v| v.model = "berd".into()),
        ("[SEP]", |v| v.model = "bert".into()),
    ];
    for (expected, change) in cases {
        let mut vocabulary = letters();
        change(&mut vocabulary);
        let error = Tokenizer::from_gguf(vocabulary).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
    }
    // Merges that lead in circles are followed once each.
    let mut circle = letters();
    circle.tokens.extend(["ba".into(), "aba".into(), "bab".into()]);
    circle.types.extend([PieceKind::Normal; 3]);
    circle.scores.clear();
    circle.merges = ["b a", "a b", "ab a", "ba b", "a ba", "b ab", "a b"].map(str::to_owned).to_vec();
    let tokenizer = Tokenizer::from_gguf(circle).unwrap();
    let ids = tokenizer.encode(&"ab".repeat(50_000), false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), "ab".repeat(50_000));
}

#[test]
fn ids_outside_the_vocabulary_are_left_out() {
    let tokenizer = Tokenizer::from_gguf(letters()).unwrap();
    assert_eq!(tokenizer.decode(&[3, 500, u32::MAX, 4], false), "ab");
    assert_eq!((tokenizer.token(500), tokenizer.bytes(500), tokenizer.is_special(500)), (None, None, false));
    assert_eq!(tokenizer.len(), 8);
    let mut llama = letters();
    (llama.model, llama.pre) = ("llama".into(), None);
    let tokenizer = Tokenizer::from_gguf(llama).unwrap();
    assert_eq!(tokenizer.decode(&[3, 500, u32::MAX, 4], false), "ab");
    assert_eq!((tokenizer.token(500), tokenizer.bytes(500)), (None, None));
}

#[test]
fn configurations_of_the_wrong_kind_are_errors() {
    for config in [
        json!([]),
        json!({"add_bos_token": "yes"}),
        json!({"bos_token": 3}),
        json!({"chat_template": 3}),
        json!({"chat_template": [{"name": "x"}]}),
        json!({"additional_special_tokens": "x"}),
        json!({"added_tokens_decoder": {"x": {"content": "y"}}}),
    ] {
        let error = TokenizerConfig::from_json(&config, "tokenizer_config.json").unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json"), "{error}");
    }
    let config =
        json!({"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]});
    let config = TokenizerConfig::from_json(&config, "c").unwrap();
    assert_eq!(config.templates.len(), 2);
    let error = Message::from_json(json!({"content": "x"})).unwrap_err().to_string();
    assert!(error.contains("role"), "{error}");
}
