/* Disks that lie: stored data rots, a write goes to a wrong place, a whole disk is lost.
 *
 * Which damage is dealt. The promise is that committed data survive, and no wrong answer is given, as long as a
 * majority's disks are intact; so a member may be harmed only while enough other voters are whole to
 * form a majority without it (rot_may_harm()). A member that was harmed counts as lost until a new one stands
 * in its place. Only what was synced is harmed, and of the log only what its own later batches vouch for
 * (daemon/log/wal_internal.h): nobody can tell damage to the very last batches from a write that never
 * finished, so for them the disk must be honest (but for the scenario lost-tail, where a leader can). A log's write that went astray is the same case until a
 * later batch vouches for its place: if the member dies before, its disk counts as broken.
 *
 * What the member must do. Either the damage is no matter to it, or it refuses with ERR_CORRUPT: at its
 * start, by ending, or in an answer. Then, as with the real daemon, it comes back as a new member with an
 * empty disk: repair.h. Damage must never spread: a snapshot of a harmed member may be refused by its
 * receiver, and all else is compared with the model as ever. */
#ifndef SIM_ROT_H
#define SIM_ROT_H

#include "lib/base/error.h"
#include "tests/sim/world.h"

struct sim;
struct simnode;

/* Whether a majority of intact voters is left without this one. */
bool rot_may_harm(struct sim *s, const struct simnode *n);

/* Both return false if there is nothing that may be harmed. */
bool rot_strike(struct simnode *n,
                struct simrng *rng); /* bits, a sector of zeros, of garbage; a file's end */
bool rot_misdirect(struct simnode *n, struct simrng *rng); /* one of its next writes */

/* ---- aimed, for scenario_rot.c; they don't ask rot_may_harm() */

/* Of a member that is down: flips a bit of a value in the store's file that the newest state holds. */
bool rot_value(struct simnode *n, struct simrng *rng);
/* Of a member that runs: some changes of a revision, up to its last one, are gone from the store's file, as if the
 * write of their page had got lost. *ret_revision: which. */
bool rot_last_changes(struct simnode *n, struct simrng *rng, int64_t *ret_revision);
/* The segment that the log ends in, and up to where a later batch vouches for it. */
void rot_log_place(struct simnode *n, uint64_t *ret_segment, uint64_t *ret_offset);
/* Harms what is vouched for behind that place. */
bool rot_log_behind(struct simnode *n, struct simrng *rng, uint64_t segment, uint64_t offset);

/* The member is about to die: does a write that went astray make it a loss? */
bool rot_is_loss(struct simnode *n);

/* The member found damage (ERR_CORRUPT): a violation if its disk was not harmed. It is lost with the next
 * simnode_settle(). */
void rot_found(struct simnode *n, const char *where);

#endif
