// Last of the scripts: every section has registered itself.
"use strict";

report.start().catch((error) => {
  document.getElementById("main").append(report.h("p", { class: "fault", role: "alert" }, `The page cannot be shown: ${error.message}`));
});
