//! Sessions against whole texts without caches.

use crate::{VOCAB, assert_near, model, random, text, whole};
use mobilis_zoo::llm::session::{SessionError, SessionOptions, Want};
use mobilis_zoo::llm::{Sessions, TextModel};

fn session(model: &dyn TextModel, batch: usize, chunk: usize) -> Box<dyn Sessions> {
    model.session(SessionOptions { chunk, ..SessionOptions::new(batch, 64) })
}

#[test]
fn pieces_of_any_length_give_what_whole_texts_give() {
    for window in [None, Some(6)] {
        let model = model(1, window);
        let texts = [text(1, 40), text(2, 33)];
        let mut session = session(&*model, 2, 7);
        let mut at = [0, 0];
        for (a, b) in [(5, 12), (1, 1), (0, 3), (9, 0), (17, 1), (8, 16)] {
            let rows = [&texts[0][at[0]..at[0] + a], &texts[1][at[1]..at[1] + b]];
            let logits = session.feed(&rows, Want::All).unwrap();
            for (row, count) in [a, b].into_iter().enumerate() {
                let expected = whole(&*model, &texts[row][..at[row] + count]);
                assert_eq!(logits.positions(row).count(), count);
                for (found, expected) in logits.positions(row).zip(&expected[at[row]..]) {
                    assert_near(found, expected);
                }
                at[row] += count;
            }
            assert_eq!(session.lengths(), at);
        }
    }
}

#[test]
fn sequences_are_copied_left_out_and_reordered() {
    for window in [None, Some(5)] {
        let model = model(2, window);
        let mut session = session(&*model, 1, 4);
        let begin = text(3, 9);
        session.feed(&[&begin], Want::Last).unwrap();
        session.select(&[0, 0, 0]).unwrap();
        session.feed(&[&[1, 2], &[3], &[]], Want::Last).unwrap();
        session.select(&[2, 0, 1]).unwrap();
        session.select(&[1, 0, 1, 2]).unwrap();
        session.select(&[3, 1, 0]).unwrap();
        let logits = session.feed(&[&[9], &[9], &[9]], Want::Last).unwrap();
        for (row, middle) in [&[3][..], &[], &[1, 2]].into_iter().enumerate() {
            let all = [&begin[..], middle, &[9]].concat();
            assert_near(logits.last(row).unwrap(), whole(&*model, &all).last().unwrap());
        }
        assert!(matches!(session.select(&[]), Err(SessionError::Rows { .. })));
        assert!(matches!(session.select(&[3]), Err(SessionError::NoRow { row: 3, batch: 3 })));
    }
}

#[test]
fn a_sequence_goes_back_as_far_as_its_positions_are_kept() {
    let (begin, other) = (text(4, 30), text(5, 6));
    for window in [None, Some(5)] {
        let model = model(3, window);
        let mut session = session(&*model, 1, 4);
        session.feed(&[&begin], Want::Last).unwrap();
        // A ring of 5 + 4 - 1 slots has 22..30; the query at 27 sees 23..=27.
        let mut length = 27;
        session.rewind(0, length).unwrap();
        if window.is_some() {
            assert!(matches!(session.rewind(0, 24), Err(SessionError::Rewind { length: 27, wanted: 24, .. })));
        } else {
            length = 3;
            session.rewind(0, length).unwrap();
        }
        let logits = session.feed(&[&other], Want::All).unwrap();
        let all = [&begin[..length], &other].concat();
        for (found, expected) in logits.positions(0).zip(&whole(&*model, &all)[length..]) {
            assert_near(found, expected);
        }
        assert!(session.rewind(0, 60).is_err() && session.rewind(1, 0).is_err());
        session.rewind(0, 0).unwrap();
        let logits = session.feed(&[&other], Want::Last).unwrap();
        assert_near(logits.last(0).unwrap(), whole(&*model, &other).last().unwrap());
    }
}

#[test]
fn losses_are_those_of_the_logits() {
    let model = random(4);
    let texts = [text(6, 20), text(7, 11)];
    let mut session = session(&*model, 2, 6);
    let rows: Vec<&[u32]> = texts.iter().map(|t| &t[..t.len() - 1]).collect();
    let next: Vec<&[u32]> = texts.iter().map(|t| &t[1..]).collect();
    let losses = session.losses(&rows, &next).unwrap();
    for (text, losses) in texts.iter().zip(&losses) {
        let expected: Vec<f32> = whole(&*model, text)
            .iter()
            .zip(&text[1..])
            .map(|(logits, next)| {
                let total: f32 = logits.iter().map(|l| l.exp()).sum();
                total.ln() - logits[*next as usize]
            })
            .collect();
        assert_near(losses, &expected);
    }
    assert!(matches!(session.losses(&rows, &[&[], &[]]), Err(SessionError::Next { row: 0, tokens: 19, next: 0 })));
    assert!(matches!(session.losses(&[&[1], &[]], &[&[99], &[]]), Err(SessionError::Token { token: 99, .. })));
}

#[test]
fn faults_are_told_and_change_nothing() {
    let model = random(5);
    let mut session = session(&*model, 2, 8);
    session.feed(&[&[1, 2], &[3]], Want::Last).unwrap();
    assert!(matches!(session.feed(&[&[1]], Want::Last), Err(SessionError::Rows { batch: 2, found: 1 })));
    let token = VOCAB as u32;
    assert!(matches!(session.feed(&[&[1], &[token]], Want::Last), Err(SessionError::Token { row: 1, .. })));
    let long = vec![1; 63];
    let full = session.feed(&[&long, &[1]], Want::Last);
    assert!(matches!(full, Err(SessionError::Full { row: 0, wanted: 65, positions: 64 })));
    assert_eq!(session.lengths(), [2, 1]);
    // The last position can be used.
    session.feed(&[&long[..62], &[1]], Want::Last).unwrap();
    let nothing = session.feed(&[&[], &[]], Want::All).unwrap();
    assert!(nothing.last(0).is_none() && nothing.vocab() == VOCAB);
}

#[test]
fn caches_grow_with_the_text() {
    for window in [None, Some(700)] {
        let model = model(6, window);
        let mut session = model.session(SessionOptions::new(2, 5000));
        let texts = [text(1, 1500), text(2, 40)];
        session.feed(&[&texts[0][..1020], &texts[1][..30]], Want::Last).unwrap();
        let logits = session.feed(&[&texts[0][1020..], &texts[1][30..]], Want::Last).unwrap();
        for (row, text) in texts.iter().enumerate() {
            assert_near(logits.last(row).unwrap(), whole(&*model, text).last().unwrap());
        }
    }
}
