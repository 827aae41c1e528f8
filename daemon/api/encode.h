/* Responses packed straight from the store's revisions, without building message structs first: the hot
 * paths of many watchers and of large ranges. Byte for byte what protobuf would pack. */
#ifndef API_ENCODE_H
#define API_ENCODE_H

#include "daemon/watch/watch.h"
#include "lib/base/bytes.h"
#include "proto/rpc.pb-c.h"

/* Size of one `events` field of a WatchResponse. */
size_t encode_event_size(const struct watch_event *event);
void encode_event(struct buf *b, const struct watch_event *event);

/* One `kvs` field of a RangeResponse. */
void encode_range_kv(struct buf *b, const struct mvcc_kv *kv);

/* The fields before the events. */
void encode_watch_head(struct buf *b, const Etcdserverpb__ResponseHeader *header, int64_t watch_id,
                       bool fragment);

#endif
