// The gate's extension of ComfyUI's web UI: a menu that leads to the gate's own page of the caller, and to signing out there.
import { app } from "../scripts/app.js";

const page = new URL("me", import.meta.url);
const signOut = new URL("me#sign-out", import.meta.url);

app.registerExtension({
  name: "comfygate.account",
  commands: [
    {
      id: "comfygate.access",
      label: "comfygate: My access",
      menubarLabel: "My access",
      icon: "pi pi-id-card",
      function: () => {
        window.open(page, "_blank", "noopener");
      },
    },
    {
      // In the same tab: a page that stays open would go on with what signing out removes. The web UI asks first when work is not saved.
      id: "comfygate.signOut",
      label: "comfygate: Sign out",
      menubarLabel: "Sign out",
      icon: "pi pi-sign-out",
      function: () => {
        window.location.assign(signOut);
      },
    },
  ],
  menuCommands: [{ path: ["comfygate"], commands: ["comfygate.access", "comfygate.signOut"] }],
});
