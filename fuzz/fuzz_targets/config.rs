//! The text of a configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(value) = mobilis_zoo::import::json::parse(text) {
        let config = mobilis_zoo::llm::config::Config::new("config.json", value);
        let _ = (config.heads(), config.rotary(None), config.layers());
    }
});
