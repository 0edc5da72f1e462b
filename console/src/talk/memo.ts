// A component that is rendered again only if a prop is another object, or a signal that it reads has changed.
import { Component, type ComponentChildren, type ComponentType, createElement, type FunctionComponent } from "preact";

export function memo<P extends object>(View: FunctionComponent<P>): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const [names, old] = [Object.keys(next) as (keyof P)[], this.props as P];
      return names.length !== Object.keys(old).length || names.some((name) => next[name] !== old[name]);
    }
    override render(): ComponentChildren {
      return createElement(View, this.props as P);
    }
  };
}
