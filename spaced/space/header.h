/* The header of a Space: the YAML block at the top of README.md, read as Hugging Face reads it (hub-docs,
 * spaces-config-reference). Pure. Bad values are warned about and left out, unknown keys are kept in `json`; only a block
 * that is no YAML mapping at all is an error. Bounded: size, depth, number of nodes; aliases are refused. */
#ifndef SPACED_SPACE_HEADER_H
#define SPACED_SPACE_HEADER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define CARD_README_MAX (1U << 20) /* bytes of README.md that are looked at */
#define CARD_BLOCK_MAX 65536U
#define CARD_WARNINGS_MAX 32

struct strings {
	char **v; /* not NULL-ended */
	size_t n;
};

struct card {
	bool present; /* there was a block */
	char *title, *emoji, *color_from, *color_to;
	char *sdk, *sdk_version, *python_version;
	char *app_file, *app_build_command;
	char *base_path;
	char *thumbnail, *short_description, *header;
	char *suggested_hardware, *suggested_storage;
	char *license, *meta_title, *description, *dev_mode_folder;
	struct strings models, datasets, tags, preload_from_hub, hf_oauth_scopes, hf_oauth_authorized_org;
	bool pinned, full_width, disable_embedding, hf_oauth;
	uint32_t app_port;		      /* 0: not set */
	uint32_t startup_timeout_s;	      /* 0: not set */
	uint32_t hf_oauth_expiration_minutes; /* 480 when not set */
	char *coep, *coop, *corp;	      /* custom_headers */
	json_t *json;			      /* everything, also what is not listed above; an object */
	struct strings warnings;	      /* one sentence each */
};

/* 0, also without a block; -1: the block is no YAML mapping; err says the line in README.md. `out` is always to be
 * released. */
int card_parse(struct str readme, struct card *out, struct err *err);
void card_release(struct card *c);
/* The whole header as JSON text, "{}" without one. malloc'd. */
char *card_json(const struct card *c);
/* custom_headers and disable_embedding as header lines ("Name: value\r\n"...) for every response of the app; "" for none.
 * `embedder` is the origin that may always frame the app. malloc'd. */
char *card_response_headers(const struct card *c, const char *embedder);

#endif
