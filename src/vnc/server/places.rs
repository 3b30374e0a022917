// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who makes room where there are too many: users share the places, so that none keeps the others out.

use std::collections::BTreeMap;

/// A user of the host by its number. All whom the kernel does not know, such as those by TCP, count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct User(pub(super) Option<u32>);

impl User {
    const ROOT: Self = Self(Some(0));
}

/// Which user has how many places.
struct Shares(BTreeMap<User, usize>);

impl Shares {
    fn of(users: impl Iterator<Item = User>) -> Self {
        let mut shares = BTreeMap::new();
        for user in users {
            *shares.entry(user).or_default() += 1;
        }
        Self(shares)
    }

    fn count(&self, user: User) -> usize {
        self.0.get(&user).copied().unwrap_or(0)
    }

    /// Who has the most; of several rather not root.
    fn greediest(&self) -> Option<(User, usize)> {
        let shares = self.0.iter().map(|(user, count)| (*user, *count));
        shares.max_by_key(|(user, count)| (*count, *user != User::ROOT))
    }
}

/// Of the viewers in their order, all of whom look, the one that leaves so that `newcomer` can look: the last one of
/// the user who has the most, if that one still has more than `newcomer` afterwards. One viewer of root's always
/// finds a place among those of others. `None` if `newcomer` has its share already.
pub(super) fn who_leaves(
    viewers: impl Iterator<Item = (u64, User)> + Clone,
    newcomer: User,
) -> Option<u64> {
    let shares = Shares::of(viewers.clone().map(|(_, user)| user));
    let (greediest, most) = shares.greediest()?;
    let own = shares.count(newcomer);
    let first_of_root = newcomer == User::ROOT && own == 0;
    let has_less = own + 1 < most || first_of_root;
    let theirs = viewers.filter(|(_, user)| *user == greediest);
    theirs.map(|(id, _)| id).last().filter(|_| has_less)
}

/// Of connections in their order, none of which looks yet, the one that is closed for another one of `newcomer`: the first
/// one of the user who has the most with it.
pub(super) fn who_gives_up(
    connections: impl Iterator<Item = (u64, User)> + Clone,
    newcomer: User,
) -> Option<u64> {
    let users = connections.clone().map(|(_, user)| user);
    let one_more = users.clone().filter(|user| *user == newcomer).take(1);
    let (greediest, _) = Shares::of(users.chain(one_more)).greediest()?;
    let mut theirs = connections.filter(|(_, user)| *user == greediest);
    theirs.next().map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: User = User(Some(1000));
    const BOB: User = User(Some(1001));
    const SOMEBODY: User = User(None);

    /// Connections of users, by number from 1 on.
    fn all(users: &[(User, usize)]) -> Vec<(u64, User)> {
        let users = users.iter().flat_map(|(user, count)| vec![*user; *count]);
        (1..).zip(users).collect()
    }

    #[test]
    fn user_with_the_most_viewers_makes_room_for_others() {
        let leaves = |users: &[(User, usize)], newcomer| {
            let viewers = all(users);
            who_leaves(viewers.into_iter(), newcomer)
        };
        assert_eq!(leaves(&[(ALICE, 32)], ALICE), None);
        assert_eq!(leaves(&[(ALICE, 32)], BOB), Some(32));
        assert_eq!(leaves(&[(ALICE, 32)], User::ROOT), Some(32));
        assert_eq!(leaves(&[(SOMEBODY, 32)], SOMEBODY), None);
        assert_eq!(leaves(&[(SOMEBODY, 32)], ALICE), Some(32));
        // As many for each, and nobody is driven out for what the other would have more.
        assert_eq!(leaves(&[(ALICE, 18), (BOB, 14)], BOB), Some(18));
        assert_eq!(leaves(&[(ALICE, 17), (BOB, 15)], BOB), Some(17));
        assert_eq!(leaves(&[(ALICE, 16), (BOB, 16)], BOB), None);
        assert_eq!(leaves(&[(User::ROOT, 31), (BOB, 1)], BOB), Some(31));
    }

    #[test]
    fn root_finds_a_place_among_any_number_of_users() {
        let crowd: Vec<_> = (1..=32).map(|n| (u64::from(n), User(Some(n)))).collect();
        let leaves = |newcomer| who_leaves(crowd.iter().copied(), newcomer);
        assert!(leaves(User::ROOT).is_some());
        assert_eq!(leaves(User(Some(99))), None);
        let mut crowd = crowd.clone();
        crowd[7].1 = User::ROOT;
        assert_eq!(who_leaves(crowd.iter().copied(), User::ROOT), None);
    }

    #[test]
    fn oldest_connection_of_the_user_with_the_most_gives_up() {
        let gives_up = |users: &[(User, usize)], newcomer| {
            let connections = all(users);
            who_gives_up(connections.into_iter(), newcomer)
        };
        assert_eq!(gives_up(&[(ALICE, 32)], ALICE), Some(1));
        assert_eq!(gives_up(&[(BOB, 1), (ALICE, 31)], ALICE), Some(2));
        assert_eq!(gives_up(&[(BOB, 1), (ALICE, 31)], BOB), Some(2));
        assert_eq!(
            gives_up(&[(User::ROOT, 1), (SOMEBODY, 31)], User::ROOT),
            Some(2)
        );
        // The newcomer's is the greatest share, though not among the others.
        assert_eq!(gives_up(&[(BOB, 16), (ALICE, 16)], ALICE), Some(17));
        let mut crowd: Vec<_> = (1..=32).map(|n| (u64::from(n), User(Some(n)))).collect();
        crowd[0].1 = User::ROOT;
        let gone = who_gives_up(crowd.iter().copied(), User(Some(99)));
        assert!(gone.is_some_and(|id| id != 1), "{gone:?}");
        assert_eq!(who_gives_up([].into_iter(), ALICE), None);
    }
}
