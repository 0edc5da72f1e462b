// The views. Each is loaded when it is opened first; talking is what most people come for.
import { lazy } from "./ui/lazy";

export const TalkView = lazy(() => import("./talk/talk"));
export const MemoryView = lazy(() => import("./memory/memory"));
export const UsageView = lazy(() => import("./usage/usage"));
export const AccountView = lazy(() => import("./account/account"));
export const AdminView = lazy(() => import("./admin/admin"));
export const InspectorView = lazy(() => import("./inspector/inspector"));
export const WelcomeView = lazy(() => import("./welcome/welcome"));
