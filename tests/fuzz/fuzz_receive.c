/* A whole receive-pack request: commands, options, the pack scanner; then trees and .gitmodules from the same bytes. */
#include <stdint.h>

#include "spaced/git/pack_scan.h"
#include "spaced/git/receive.h"
#include "spaced/git/refs.h"
#include "spaced/git/tree_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decide(struct receive *r)
{
	cleanup_ref_table struct ref_table t = {0};
	cleanup_buf struct buf report = BUF_INIT;
	struct ref_rules rules = {.default_ref = "refs/heads/main", .max_refs = 50, .atomic = r->atomic};

	ref_table_put(&t, "refs/heads/main", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	ref_table_apply(&t, r, &rules);
	receive_report_begin(&report, "ok");
	for (size_t i = 0; i < r->ncommands; i++)
		receive_report_ref(&report, r->commands[i].name, r->commands[i].error);
	receive_report_end(&report);
	if (!ref_table_find(&t, "refs/heads/main"))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data;
	struct receive r;
	struct pack_scan scan;
	struct err err = ERR_INIT;
	struct pkt pkt;
	size_t at = 0;
	ssize_t k;
	cleanup_ref_table struct ref_table t = {0};

	receive_init(&r, 20, 100);
	while (r.state != RECEIVE_PACK && (k = pkt_parse(p + at, size - at, &pkt)) > 0) {
		at += (size_t)k;
		if (receive_packet(&r, &pkt, &err) < 0)
			break;
	}
	if (r.state == RECEIVE_PACK) {
		pack_scan_init(&scan, &(struct pack_limits){1 << 20, 1 << 20, 1 << 18, 1000});
		pack_scan_feed(&scan, data + at, size - at, &err);
		pack_scan_release(&scan);
		decide(&r);
	}
	receive_release(&r);
	tree_error((struct str){p, size});
	gitmodules_error((struct str){p, size});
	ref_table_parse(&t, (struct str){p, size}, &err);
	return 0;
}
