// The console's icons: strokes on a grid of 24, in the colour of the text beside them. They are decoration: what a button
// does is said by its label.
const PATHS = {
  account: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-8 8a8 8 0 0 1 16 0",
  admin: "M12 3l8 3v6c0 5-3.500 8-8 9-4.500-1-8-4-8-9V6l8-3Zm-3 9 2.200 2.200L15.500 10",
  alert: "M12 4 2.500 20h19L12 4Zm0 6v4m0 3v.01",
  check: "M5 12.500 10 17.500 19 7",
  chat: "M5 5h14a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7l-5 4v-4H5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2Z",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  devices: "M3 5h13v9H3zM7 18h5m4-8h5v10h-5z",
  down: "M6 9l6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16v4Z",
  download: "M12 4v11m-5-5 5 5 5-5M4 20h16",
  hide: "M4 4l16 16M10 6.300A9.500 9.500 0 0 1 12 6c5 0 8 4 9.500 6a17 17 0 0 1-2.500 2.900M6.500 7.800A16 16 0 0 0 2.500 12c1.500 2 4.500 6 9.500 6 1.500 0 2.900-.400 4.100-1M10 10a2.800 2.800 0 0 0 4 4",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Zm0-10v5m0-8v.01",
  key: "M14.500 14.500a5 5 0 1 0-4.600-3.100L4 17.300V20h3v-2h2v-2l1.700-1.700c1.100.200 2.500.200 3.800.200Zm1-6.500v.01",
  lock: "M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3",
  mail: "M4 6h16v12H4zM4 7l8 6 8-6",
  memory: "M12 5a3 3 0 0 0-5.500 1.500A3 3 0 0 0 5 11a3 3 0 0 0 1 5 3 3 0 0 0 6 1V5Zm0 0a3 3 0 0 1 5.500 1.500A3 3 0 0 1 19 11a3 3 0 0 1-1 5 3 3 0 0 1-6 1",
  menu: "M4 7h16M4 12h16M4 17h16",
  out: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  pause: "M9 6v12M15 6v12",
  play: "M8 5.500 18 12 8 18.500Z",
  plus: "M12 5v14M5 12h14",
  retry: "M20 11a8 8 0 1 0-.700 4.500M20 5v6h-6",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13Zm5-1.500L20 20",
  send: "M4 12 20 4l-5 16-3.500-7L4 12Z",
  show: "M2.500 12c1.500-2 4.500-6 9.500-6s8 4 9.500 6c-1.500 2-4.500 6-9.500 6s-8-4-9.500-6Zm9.500 2.800a2.800 2.800 0 1 0 0-5.600 2.800 2.800 0 0 0 0 5.600Z",
  stop: "M7 7h10v10H7z",
  tool: "M14.500 6.500a4 4 0 0 0-5 5L4 17l3 3 5.500-5.500a4 4 0 0 0 5-5L15 12l-3-3 2.500-2.500Z",
  trash: "M5 7h14M10 7V4h4v3m-7 0 1 13h8l1-13",
  usage: "M4 20V10m6 10V4m6 16v-7m4 7H3",
  wire: "M3 12h4l3-8 4 16 3-8h4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon-image" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
