//! A chat template, with a short conversation put into it.
#![no_main]

use mobilis_zoo::text::{ChatOptions, ChatTemplate, Message, TokenizerConfig};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(template) = ChatTemplate::new(text, "default", &TokenizerConfig::default()) {
        let messages = [Message::system("Be brief."), Message::user("Hello"), Message::assistant("Yes?")];
        let _ = template.render(&messages, &ChatOptions::to_answer());
    }
});
