//! What NeMo wants of a configuration beside what makes the network: without it, it does not open an archive.

use serde_json::{Value, json};

/// Adds what NeMo asks for, and takes out what it does not read as nothing.
pub(super) fn complete(config: &mut Value) {
    // "Nothing" is a value to NeMo, where an entry that is missing has a default.
    if let Value::Object(sections) = config {
        sections.retain(|_, value| !value.is_null());
    }
    if !config["joint"].is_object() {
        return;
    }
    // What a recipe calls by its own name, as `durations` decide which it is.
    if config["loss"]["loss_name"] == "rnnt" {
        config["loss"]["loss_name"] = "default".into();
    }
    let widths = json!({
        "enc_hidden": config["joint"]["jointnet"]["encoder_hidden"],
        "pred_hidden": config["decoder"]["prednet"]["pred_hidden"],
        "joint_hidden": config["joint"]["jointnet"]["joint_hidden"],
    });
    defaults(config, "model_defaults", widths);
    defaults(config, "decoding", json!({"strategy": "greedy_batch", "greedy": {"max_symbols": 10}}));
}

/// Fills a section with what it does not say.
fn defaults(config: &mut Value, key: &str, entries: Value) {
    if !config[key].is_object() {
        config[key] = json!({});
    }
    if let (Value::Object(section), Value::Object(entries)) = (&mut config[key], entries) {
        for (key, value) in entries {
            section.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nemo_misses_is_there() {
        let mut config = json!({
            "ctc_reduction": null, "decoding": {"strategy": "greedy"}, "loss": {"loss_name": "rnnt"},
            "decoder": {"prednet": {"pred_hidden": 3}}, "joint": {"jointnet": {"encoder_hidden": 4, "joint_hidden": 5}},
        });
        complete(&mut config);
        assert!(config.get("ctc_reduction").is_none());
        assert_eq!(config["model_defaults"], json!({"enc_hidden": 4, "pred_hidden": 3, "joint_hidden": 5}));
        assert_eq!(config["decoding"], json!({"strategy": "greedy", "greedy": {"max_symbols": 10}}));
        assert_eq!(config["loss"]["loss_name"], "default");
        let mut ctc = json!({"decoder": {}, "decoding": null});
        complete(&mut ctc);
        assert_eq!(ctc, json!({"decoder": {}}));
    }
}
