/* Raft messages on the wire: struct raft_message <-> raftpb.Message, and batches of them.
 *
 * A batch is a packed raftpb.MessageBatch whose crc field stands last: its CRC32C is over all bytes before
 * it. Decoding takes nothing on trust: what it hands out satisfies raft_step()'s types. */
#ifndef PEER_CODEC_H
#define PEER_CODEC_H

#include "daemon/raft/raft.h"
#include "lib/base/bytes.h"
#include "lib/base/memory.h"
#include "proto/raft.pb-c.h"

/* Fills *ret_wire; pointers go into `m`, its entries and `arena`. */
void codec_to_wire(const struct raft_message *m, struct arena *arena, Raftpb__Message *ret_wire);

/* Entries are made anew, one reference each: codec_message_free(). ERR_INVALID: a type or a number of
 * members out of range, entries that aren't consecutive. */
enum errc codec_from_wire(const Raftpb__Message *wire, struct raft_message *ret_message);
void codec_message_free(struct raft_message *m);

/* Building: begin on an empty buffer, add, end. */
void codec_batch_begin(struct buf *b, uint64_t cluster_id, uint64_t from);
void codec_batch_add(struct buf *b, const struct raft_message *m);
void codec_batch_end(struct buf *b);

/* Checks the crc and unpacks; free with raftpb__message_batch__free_unpacked(.., NULL). NULL: damaged. */
Raftpb__MessageBatch *codec_batch_unpack(struct bytes batch);

#endif
