//! Room for packs: no more of it than a fixed number, however many threads there are.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::limits;

/// What packs are made in.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Used before, and empty now.
    spare: Vec<Vec<u8>>,
    used: usize,
}

/// The right to have one pack in memory; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Room(Arc<Buffers>);

impl Buffers {
    /// Waits until a pack more may be in memory.
    pub(crate) fn take(self: &Arc<Self>, new: impl FnOnce() -> Vec<u8>) -> (Room, Vec<u8>) {
        let full = |state: &mut State| state.used >= limits::PACK_BUFFERS;
        let waited = self.freed.wait_while(self.state(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.used += 1;
        let spare = state.spare.pop();
        drop(state);
        (Room(Arc::clone(self)), spare.unwrap_or_else(new))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Gives back the room with what it was used for, unless that is still in use.
    pub(crate) fn give_back(self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            self.0.state().spare.push(buffer);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.state().used -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_more_room_than_there_is_waits_until_some_is_given_back() {
        let buffers = Arc::new(Buffers::default());
        let mut taken: Vec<_> = (0..limits::PACK_BUFFERS)
            .map(|_| buffers.take(Vec::new))
            .collect();
        let waiting = Arc::clone(&buffers);
        let thread = std::thread::spawn(move || waiting.take(|| vec![1]).1);
        let (room, _) = taken.pop().expect("one");
        room.give_back(vec![2]);
        // What was given back is used before anything new is made.
        assert_eq!(thread.join().expect("it gets one"), [2]);
        drop(taken);
        assert_eq!(buffers.state().used, 0);
    }
}
