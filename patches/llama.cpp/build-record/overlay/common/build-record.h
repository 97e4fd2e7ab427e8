#pragma once

// What this build was made from: upstream commit, layers, tree and device, as one JSON object.
const char * uniscale_build_record(void);
