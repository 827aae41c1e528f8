/* Watch responses packed straight from the store's revisions: the hot path of many watchers, without
 * building message structs first. Byte for byte what protobuf would pack. */
#ifndef API_ENCODE_H
#define API_ENCODE_H

#include "daemon/watch/watch.h"
#include "lib/base/bytes.h"
#include "proto/rpc.pb-c.h"

/* Size of one `events` field of a WatchResponse. */
size_t encode_event_size(const struct watch_event *event);
void encode_event(struct buf *b, const struct watch_event *event);

/* The fields before the events. */
void encode_watch_head(struct buf *b, const Etcdserverpb__ResponseHeader *header, int64_t watch_id,
                       bool fragment);

#endif
