//! A recipe in one of its three languages, with a setting from the command line: the first byte says which, a zero
//! ends the setting.
#![no_main]

use mobilis_zoo::asr::train::Prepared;
use mobilis_zoo::recipe::document;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut chars = text.chars();
    let language = ["yaml", "toml", "json"][chars.next().map_or(0, |c| c as usize % 3)];
    let (setting, text) = chars.as_str().split_once('\0').unwrap_or(("", chars.as_str()));
    let settings: Vec<String> = Some(setting.to_string()).filter(|s| !s.is_empty()).into_iter().collect();
    let Ok(parsed) = document::parse(text, language) else { return };
    let Ok(filled) = document::resolve(parsed, &settings) else { return };
    if let Ok(prepared) = Prepared::read(filled) {
        let _ = (prepared.yaml(), prepared.folder());
    }
});
